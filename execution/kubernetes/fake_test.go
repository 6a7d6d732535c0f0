package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/labels"
)

type object = map[string]any

// cluster is an apiserver for tests, with pods, leases and deployments of one namespace, and the
// PIDs 1 of the pods.
type cluster struct {
	t      *testing.T
	server *httptest.Server
	mux    *http.ServeMux
	agent  func(verb string, claim object) // what is told of claims, with mu held

	mu       sync.Mutex
	version  int
	objects  map[string]map[string]object // by resource and name
	history  []event
	oldest   int           // the version that watches can begin with
	changed  chan struct{} // closed and replaced at each event
	cut      chan struct{} // closed and replaced to end all watches
	refuse   map[string]func(http.ResponseWriter)
	requests []string
	asked    chan struct{}    // closed and replaced at each request
	linger   bool             // pods that are deleted stay, with a deletionTimestamp
	refill   int              // blanks to add, one for each that is claimed
	deaf     map[string]error // why there is no link to a pod
	boots    []string         // the names of pods and their generations
	rules    []object         // the rights of the account, as SelfSubjectRulesReview has them
	ended    chan string      // the addresses of those that were told to end
}

type event struct {
	version  int
	resource string
	kind     string
	object   object
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		t: t, objects: map[string]map[string]object{"pods": {}, "leases": {}, "deployments": {}, "sandboxclaims": {}, "sandboxwarmpools": {}, "sandboxtemplates": {}, "sandboxes": {}},
		changed: make(chan struct{}), cut: make(chan struct{}), refuse: make(map[string]func(http.ResponseWriter)), deaf: make(map[string]error),
		asked: make(chan struct{}), ended: make(chan string, 100),
	}
	mux := http.NewServeMux()
	for _, prefix := range []string{"/api/v1", "/apis/coordination.k8s.io/v1", "/apis/apps/v1"} {
		c.serveGroup(mux, prefix)
	}
	c.mux = mux
	c.serveReviews(mux)
	c.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		c.cutWatches()
		c.server.Close()
	})
	c.put("deployments", deployment())
	return c
}

// serveGroup serves the resources of a group.
func (c *cluster) serveGroup(mux *http.ServeMux, prefix string) {
	mux.HandleFunc(prefix+"/namespaces/boxes/{resource}", c.serve)
	mux.HandleFunc(prefix+"/namespaces/boxes/{resource}/{name}", c.serve)
}

// serve answers a request, unless a test refuses it.
func (c *cluster) serve(w http.ResponseWriter, r *http.Request) {
	resource, name := r.PathValue("resource"), r.PathValue("name")
	verb := map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[r.Method]
	switch {
	case r.URL.Query().Get("watch") != "":
		verb = "watch"
	case name == "" && verb == "get":
		verb = "list"
	}
	c.mu.Lock()
	c.requests = append(c.requests, verb+" "+resource)
	close(c.asked)
	c.asked = make(chan struct{})
	refuse := c.refuse[verb+" "+resource]
	c.mu.Unlock()
	if refuse != nil {
		refuse(w)
		return
	}
	body, _ := io.ReadAll(r.Body)
	switch verb {
	case "watch":
		c.watch(w, r, resource)
	case "list":
		c.list(w, r, resource)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changeLocked(w, verb, resource, name, body)
	}
}

// changeLocked serves what concerns one object.
func (c *cluster) changeLocked(w http.ResponseWriter, verb, resource, name string, body []byte) {
	old, there := c.objects[resource][name]
	if !there && verb != "create" {
		fail(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", resource, name))
		return
	}
	switch verb {
	case "get":
		reply(w, http.StatusOK, old)
	case "create":
		made := parse(body)
		if _, taken := c.objects[resource][nameOf(made)]; taken {
			fail(w, http.StatusConflict, "AlreadyExists", "it exists")
			return
		}
		reply(w, http.StatusCreated, c.putLocked(resource, made, "ADDED"))
		if resource == "sandboxclaims" {
			c.agent(verb, made)
		}
	case "update":
		made := parse(body)
		if meta(made)["resourceVersion"] != meta(old)["resourceVersion"] {
			fail(w, http.StatusConflict, "Conflict", "the object has been modified")
			return
		}
		reply(w, http.StatusOK, c.putLocked(resource, made, "MODIFIED"))
	case "patch":
		c.patchLocked(w, resource, old, body)
	case "delete":
		c.deleteLocked(w, resource, old, body)
	}
}

func (c *cluster) patchLocked(w http.ResponseWriter, resource string, old object, body []byte) {
	text, _ := json.Marshal(old)
	patch, err := jsonpatch.DecodePatch(body)
	if err == nil {
		text, err = patch.Apply(text)
	}
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, "Invalid", err.Error())
		return
	}
	made := parse(text)
	reply(w, http.StatusOK, c.putLocked(resource, made, "MODIFIED"))
	if c.refill > 0 && label(old, "state") == "free" && label(made, "state") != "free" {
		c.refill--
		c.putLocked("pods", blank(fmt.Sprintf("refill-%d", c.refill)), "ADDED")
	}
}

func (c *cluster) deleteLocked(w http.ResponseWriter, resource string, old object, body []byte) {
	var options struct {
		GracePeriodSeconds *int64
		Preconditions      struct{ UID string }
	}
	_ = json.Unmarshal(body, &options)
	if uid := options.Preconditions.UID; uid != "" && uid != meta(old)["uid"] {
		fail(w, http.StatusConflict, "Conflict", "the UID in the precondition does not match")
		return
	}
	if resource == "pods" && c.linger {
		going := clone(old)
		meta(going)["deletionTimestamp"] = "2026-01-01T00:00:00Z"
		reply(w, http.StatusOK, c.putLocked(resource, going, "MODIFIED"))
		return
	}
	c.removeLocked(resource, nameOf(old))
	if resource == "sandboxclaims" {
		c.agent("delete", old)
	}
	reply(w, http.StatusOK, object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
}

// putLocked stores an object and tells the watches.
func (c *cluster) putLocked(resource string, o object, kind string) object {
	c.version++
	o = clone(o)
	meta(o)["resourceVersion"] = strconv.Itoa(c.version)
	c.objects[resource][nameOf(o)] = o
	c.tellLocked(event{c.version, resource, kind, o})
	return o
}

func (c *cluster) removeLocked(resource, name string) {
	c.version++
	o := clone(c.objects[resource][name])
	meta(o)["resourceVersion"] = strconv.Itoa(c.version)
	delete(c.objects[resource], name)
	c.tellLocked(event{c.version, resource, "DELETED", o})
}

func (c *cluster) tellLocked(e event) {
	c.history = append(c.history, e)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) list(w http.ResponseWriter, r *http.Request, resource string) {
	selector, _ := labels.Parse(r.URL.Query().Get("labelSelector"))
	c.mu.Lock()
	defer c.mu.Unlock()
	items := c.selectLocked(resource, selector)
	kind := map[string]string{"pods": "PodList", "leases": "LeaseList"}[resource]
	version := map[string]string{"pods": "v1", "leases": "coordination.k8s.io/v1"}[resource]
	reply(w, http.StatusOK, object{
		"kind": kind, "apiVersion": version, "metadata": object{"resourceVersion": strconv.Itoa(c.version)}, "items": items,
	})
}

func (c *cluster) selectLocked(resource string, selector labels.Selector) []object {
	items := []object{}
	for _, name := range slices.Sorted(maps.Keys(c.objects[resource])) {
		if o := c.objects[resource][name]; selector.Matches(labelsOf(o)) {
			items = append(items, o)
		}
	}
	return items
}

// watch sends events until the client leaves or the test cuts all watches.
func (c *cluster) watch(w http.ResponseWriter, r *http.Request, resource string) {
	query := r.URL.Query()
	selector, _ := labels.Parse(query.Get("labelSelector"))
	since, _ := strconv.Atoi(query.Get("resourceVersion"))
	send := func(kind string, o object) {
		_ = json.NewEncoder(w).Encode(object{"type": kind, "object": o})
		w.(http.Flusher).Flush()
	}
	w.Header().Set("Content-Type", "application/json")
	c.mu.Lock()
	cut, oldest := c.cut, c.oldest
	var initial []object
	if query.Get("sendInitialEvents") == "true" {
		initial, since = c.selectLocked(resource, selector), c.version
	}
	c.mu.Unlock()
	if since < oldest {
		send("ERROR", object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": http.StatusGone, "message": "too old"})
		return
	}
	for _, o := range initial {
		send("ADDED", o)
	}
	if query.Get("sendInitialEvents") == "true" {
		send("BOOKMARK", bookmark(resource, since, object{"k8s.io/initial-events-end": "true"}))
	}
	w.(http.Flusher).Flush()
	for {
		c.mu.Lock()
		changed, news, isCut := c.changed, slices.Clone(c.history), c.cut != cut
		c.mu.Unlock()
		for _, e := range news {
			if !isCut && e.version > since && e.resource == resource && selector.Matches(labelsOf(e.object)) {
				since = e.version
				send(e.kind, e.object)
			}
		}
		select {
		case <-changed:
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func bookmark(resource string, version int, notes object) object {
	kind, group := "Pod", "v1"
	if resource == "leases" {
		kind, group = "Lease", "coordination.k8s.io/v1"
	}
	return object{"kind": kind, "apiVersion": group, "metadata": object{
		"resourceVersion": strconv.Itoa(version), "annotations": notes, "labels": object{"vivarium.dev/pool": "zoo"},
	}}
}

// bookmark tells all watches the current version.
func (c *cluster) bookmark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.tellLocked(event{c.version, "pods", "BOOKMARK", bookmark("pods", c.version, nil)})
}

// put stores an object.
func (c *cluster) put(resource string, o object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := "ADDED"
	if _, there := c.objects[resource][nameOf(o)]; there {
		kind = "MODIFIED"
	}
	c.putLocked(resource, o, kind)
}

// change changes an object.
func (c *cluster) change(resource, name string, change func(object)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := clone(c.objects[resource][name])
	change(o)
	c.putLocked(resource, o, "MODIFIED")
}

func (c *cluster) remove(resource, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(resource, name)
}

// get returns an object, or nil.
func (c *cluster) get(resource, name string) object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.objects[resource][name]
}

// names returns the names of pods in a state.
func (c *cluster) names(state string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, o := range c.objects["pods"] {
		if label(o, "state") == state {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// cutWatches ends all watches.
func (c *cluster) cutWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cut)
	c.cut = make(chan struct{})
}

// compact forgets what watches could begin with.
func (c *cluster) compact() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.oldest, c.history = c.version+1, nil
	c.version++
}

// refusing has requests of a kind fail, until the function that it returns is called.
func (c *cluster) refusing(what string, answer func(http.ResponseWriter)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse[what] = answer
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.refuse, what)
	}
}

// count returns how many requests of a kind there were.
func (c *cluster) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, r := range c.requests {
		if r == what {
			n++
		}
	}
	return n
}

// await waits until there were so many requests of a kind.
func (c *cluster) await(what string, least int) {
	for {
		c.mu.Lock()
		asked := c.asked
		c.mu.Unlock()
		if c.count(what) >= least {
			return
		}
		<-asked
	}
}

func reply(w http.ResponseWriter, code int, o object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

// fail answers with an error, as the apiserver does.
func fail(w http.ResponseWriter, code int, reason, message string) {
	reply(w, code, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

// failing returns an answer for refusing.
func failing(code int, reason, message string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { fail(w, code, reason, message) }
}
