package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

func TestHealth(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"well": {nil, `{"status": "ok", "message": "ok", "version": "1.2.3"}`},
		"ill": {
			&execution.Error{Code: execution.Unavailable, Message: "Docker Engine does not answer", Err: errors.New("dial secret")},
			`{"status": "error", "message": "Docker Engine does not answer", "version": "1.2.3"}`,
		},
		"ill for reasons of its own": {
			errors.New("password is hunter2"), `{"status": "error", "message": "internal error", "version": "1.2.3"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(validates)
			opts.Health = func(context.Context) error { return test.err }
			serve(httpapi.NewHandler(opts), request(http.MethodGet, "/health", "")).want(t, http.StatusOK, test.want)
		})
	}
}

func TestUnknownRoutes(t *testing.T) {
	for _, route := range []string{"GET /", "GET /nope", "POST /nope", "GET /v1", "POST /v1/execute/", "POST /v1/executed", "GET /health/", "GET /docs/x", "GET /redoc/x"} {
		method, path, _ := strings.Cut(route, " ")
		t.Run(route, func(t *testing.T) {
			serve(handler(validates), request(method, path, "")).want(t, http.StatusNotFound, `{"detail": "Not Found"}`)
		})
	}
}

// A path that is not in its shortest form is unknown as others are, also with a body.
func TestUnknownRoutesWithABody(t *testing.T) {
	for _, path := range []string{"/nope", "//health", "/health/../v1/files", "/v1//execute"} {
		for _, kind := range []string{"application/json", "text/plain", ""} {
			r := request(http.MethodPost, path, `{}`)
			r.Header.Set("Content-Type", kind)
			serve(handler(validates), r).want(t, http.StatusNotFound, `{"detail": "Not Found"}`)
		}
	}
}

func TestWrongMethods(t *testing.T) {
	opts := options(validates)
	opts.Auth = known{}
	opts.Mount = map[string]http.Handler{}
	for _, door := range []string{"/mcp", "/sse", "/message"} {
		opts.Mount[door] = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Errorf("%s was called", door) })
	}
	locked := httpapi.NewHandler(opts)
	for path, test := range map[string]struct {
		methods []string
		allow   string
	}{
		"/v1/execute":            {[]string{"GET", "PUT", "DELETE", "PATCH", "OPTIONS"}, "POST"},
		"/v1/files":              {[]string{"PUT", "DELETE", "PATCH", "OPTIONS"}, "GET, POST"},
		"/v1/files/x":            {[]string{"POST", "PUT", "PATCH", "OPTIONS"}, "DELETE, GET"},
		"/docs":                  {[]string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}, "GET"},
		"/redoc":                 {[]string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}, "GET"},
		"/health":                {[]string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}, "GET"},
		"/mcp":                   {[]string{"PUT", "PATCH", "OPTIONS"}, "DELETE, GET, POST"},
		"/sse":                   {[]string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}, "GET"},
		"/message":               {[]string{"GET", "PUT", "DELETE", "PATCH", "OPTIONS"}, "POST"},
		"/v1/sessions/x/files/a": {[]string{"POST", "OPTIONS"}, "DELETE, GET, PATCH, PUT"},
		"/openapi.yaml":          {[]string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}, "GET"},
	} {
		for _, method := range test.methods {
			t.Run(method+" "+path, func(t *testing.T) {
				for _, kind := range []string{"", "application/json", "text/plain", "multipart/form-data; boundary=x", "*"} {
					r := request(method, path, kind)
					r.Header.Set("Content-Type", kind)
					a := serve(locked, r)
					a.want(t, http.StatusMethodNotAllowed, `{"detail": "Method Not Allowed"}`)
					if got := a.header.Get("Allow"); got != test.allow {
						t.Errorf("%s: Allow is %q", kind, got)
					}
				}
			})
		}
	}
}

// bodyOf returns a valid body of a size.
func bodyOf(size int) string {
	const frame = `{"code": ""}`
	return strings.Replace(frame, `""`, `"`+strings.Repeat("x", size-len(frame))+`"`, 1)
}

func TestBodyLimit(t *testing.T) {
	tooLarge := `{"detail": "request body exceeds maximum of 2 MB"}`
	for name, test := range map[string]struct {
		size    int
		chunked bool
		status  int
	}{
		"declared, at the limit":  {maxBody, false, http.StatusOK},
		"declared, one byte more": {maxBody + 1, false, http.StatusRequestEntityTooLarge},
		"chunked, at the limit":   {maxBody, true, http.StatusOK},
		"chunked, one byte more":  {maxBody + 1, true, http.StatusRequestEntityTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler(validates))
			defer server.Close()
			body := io.Reader(strings.NewReader(bodyOf(test.size)))
			if test.chunked {
				body = io.MultiReader(body) // hides its size
			}
			resp, err := server.Client().Post(server.URL+"/v1/execute", "application/json", body)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != test.status {
				t.Errorf("%s %.200s %v", resp.Status, text, err)
			}
			if test.status != http.StatusOK && canonical(t, string(text)) != canonical(t, tooLarge) {
				t.Errorf("the answer is %s", text)
			}
		})
	}
}

// A body whose Content-Length is too large is refused unread on every route.
func TestBodyLimitBeforeReading(t *testing.T) {
	opts := options(validates)
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the mounted handler was called")
	})}
	opts.Limits.WorkspaceBytes = 2 * maxBody // which the routes of a session's files alone allow
	for _, path := range []string{
		"/v1/execute", "/mounted", "/nope", "/v1/sessions/x%2Ffiles%2F/execute", "/v1/sessions/x/files/a",
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, path, unreadBefore{t, w, "Connection", strings.NewReader(bodyOf(maxBody + 1))})
		r.Host, r.ContentLength = "localhost", maxBody+1
		r.Header.Set("Content-Type", "application/json")
		httpapi.NewHandler(opts).ServeHTTP(w, r)
		a := answer{w.Code, w.Header(), w.Body.String()}
		a.want(t, http.StatusRequestEntityTooLarge, `{"detail": "request body exceeds maximum of 2 MB"}`)
		if a.header.Get("Connection") != "close" {
			t.Error("the connection is kept, with the body on it")
		}
	}
}

// The limit holds for bodies of unknown size on the routes of other doors.
func TestBodyLimitOfMountedDoors(t *testing.T) {
	opts := options(validates)
	var read int64
	var readErr error
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		read, readErr = io.Copy(io.Discard, r.Body)
	})}
	r := httptest.NewRequest(http.MethodPost, "/mounted", io.MultiReader(strings.NewReader(bodyOf(maxBody+1))))
	r.Host = "localhost"
	r.Header.Set("Content-Type", "application/json")
	serve(httpapi.NewHandler(opts), r)
	var tooLarge *http.MaxBytesError
	if read != maxBody || !errors.As(readErr, &tooLarge) {
		t.Errorf("%d bytes were read, then %v", read, readErr)
	}
}

// unreadBefore is a body that must not be read before the answer begins.
type unreadBefore struct {
	t      *testing.T
	answer *httptest.ResponseRecorder
	header string // of the answer
	io.Reader
}

func (u unreadBefore) Read(p []byte) (int, error) {
	if len(u.answer.Result().Header[u.header]) == 0 {
		u.t.Error("the body was read before the answer")
	}
	return u.Reader.Read(p)
}

// holding fills a server's memory with the requests of one owner until release is called.
func holding(opts httpapi.Options, bearer string) (h http.Handler, release func()) {
	running, finish := make(chan struct{}), make(chan struct{})
	opts.Executor = execute(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		if req.Stdin == "" { // not one of those that fill
			return validates(ctx, req)
		}
		running <- struct{}{}
		<-finish
		return validates(ctx, req)
	})
	h = httpapi.NewHandler(opts)
	var clients sync.WaitGroup
	for refused := make(chan struct{}); ; {
		clients.Go(func() {
			body := `{"code": "", "stdin": "` + strings.Repeat("x", maxBody-100) + `"}`
			if a := serve(h, authorized(http.MethodPost, "/v1/execute", body, bearer)); a.status != http.StatusOK {
				close(refused)
			}
		})
		select {
		case <-running:
			continue
		case <-refused:
		}
		return h, func() {
			close(finish)
			clients.Wait()
		}
	}
}

// A request for which there is no memory is refused before its body is read. Reads and the
// requests of other owners are served.
func TestMemoryLimit(t *testing.T) {
	opts := options(nil)
	opts.Auth = known{"anna's key": "anna", "ben's key": "ben"}
	h, release := holding(opts, "Bearer anna's key")
	w := httptest.NewRecorder()
	r := authorized(http.MethodPost, "/v1/execute", "{}", "Bearer anna's key")
	r.Body, r.ContentLength = io.NopCloser(unreadBefore{t, w, "Retry-After", strings.NewReader(strings.Repeat(" ", maxBody))}), maxBody
	h.ServeHTTP(w, r)
	answer{w.Code, w.Header(), w.Body.String()}.want(t, http.StatusTooManyRequests,
		`{"detail": "your requests under way hold your share of the server's memory (MAX_IN_FLIGHT_MB); try again later"}`)
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
	}
	if left, _ := io.Copy(io.Discard, r.Body); left != 0 {
		t.Errorf("%d bytes of the body are left, so that its sender does not read the answer", left)
	}
	for path, want := range map[string]int{"/health": http.StatusOK, "/v1/sessions": http.StatusOK} {
		if a := serve(h, authorized(http.MethodGet, path, "", "Bearer anna's key")); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := serve(h, authorized(http.MethodPost, "/v1/execute", `{"code": ""}`, "Bearer ben's key")); a.status != http.StatusOK {
		t.Errorf("another: %d %s", a.status, a.body)
	}
	release()
	if a := serve(h, authorized(http.MethodPost, "/v1/execute", bodyOf(maxBody), "Bearer anna's key")); a.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// Requests without a key leave memory for the reads of owners.
func TestRequestsWithoutKeyLeaveRoom(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	opts := options(validates)
	opts.InFlightBytes = 16 << 20
	opts.Auth = known{"anna's key": "anna"}
	opts.Health = func(context.Context) error {
		asked <- struct{}{}
		<-answer
		return nil
	}
	h := httpapi.NewHandler(opts)
	refused := make(chan int)
	var strangers sync.WaitGroup
	for more := true; more; {
		strangers.Go(func() {
			if a := serve(h, request(http.MethodGet, "/health", "")); a.status != http.StatusOK {
				refused <- a.status
			}
		})
		select {
		case <-asked:
		case status := <-refused:
			if more = false; status != http.StatusTooManyRequests {
				t.Errorf("one more is answered with %d", status)
			}
		}
	}
	if a := serve(h, authorized(http.MethodGet, "/v1/sessions", "", "Bearer anna's key")); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(answer)
	strangers.Wait()
}

// Without authentication, a request for which there is no memory is refused with 503.
func TestMemoryLimitOfAll(t *testing.T) {
	h, release := holding(options(nil), "")
	defer release()
	body := bodyOf(maxBody)
	for name, length := range map[string]int64{"known": int64(len(body)), "unknown": -1} {
		r := request(http.MethodPost, "/v1/execute", body)
		r.ContentLength = length
		a := serve(h, r)
		a.want(t, http.StatusServiceUnavailable,
			`{"detail": "the requests under way hold the memory that the server has for them (MAX_IN_FLIGHT_MB); try again later"}`)
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("a length that is %s: Retry-After is %q", name, a.header.Get("Retry-After"))
		}
	}
}

// HEAD requests without a key do not use the memory for runs.
func TestHeadIsChargedAsARead(t *testing.T) {
	var served []execution.Owner
	asked, answer := make(chan struct{}), make(chan struct{})
	h := locked(&served, func(opts *httpapi.Options) {
		opts.Health = func(context.Context) error {
			asked <- struct{}{}
			<-answer
			return nil
		}
	})
	var strangers sync.WaitGroup
	for range 3 {
		strangers.Go(func() {
			if a := serve(h, request(http.MethodHead, "/health", "")); a.status != http.StatusOK {
				t.Errorf("HEAD: %d", a.status)
			}
		})
		<-asked
	}
	if a := serve(h, authorized(http.MethodPost, "/v1/execute", `{"code": ""}`, "Bearer anna's key")); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(answer)
	strangers.Wait()
}

func TestPanic(t *testing.T) {
	opts := options(func(context.Context, execution.Request) (*execution.Result, error) { panic("hunter2") })
	log, text := newLog()
	opts.Log = log
	a := send(httpapi.NewHandler(opts), `{"code": ""}`)
	id := a.header.Get("X-Request-Id")
	a.want(t, http.StatusInternalServerError, `{"detail": "internal error; the log of the server has more under request `+id+`"}`)
	for _, want := range []string{"hunter2", id, "goroutine"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in the log: %s", want, text)
		}
	}
}

// A panic in the middle of an answer does not add to it.
func TestPanicAfterTheAnswerBegan(t *testing.T) {
	opts := options(validates)
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic("hunter2")
	})}
	if a := serve(httpapi.NewHandler(opts), request(http.MethodGet, "/mounted", "")); a.status != http.StatusOK || a.body != "half" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// http.ErrAbortHandler is net/http's way to abort an answer.
func TestAbortIsPassedOn(t *testing.T) {
	opts := options(validates)
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	})}
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			t.Errorf("the panic is %v", cause)
		}
	}()
	serve(httpapi.NewHandler(opts), request(http.MethodGet, "/mounted", ""))
}

func TestRequestLog(t *testing.T) {
	opts := options(validates)
	log, text := newLog()
	opts.Log = log
	a := serve(httpapi.NewHandler(opts), request(http.MethodGet, "/nope?token=hunter2", ""))
	for _, want := range []string{"method=GET", "path=/nope", "status=404", "request=" + a.header.Get("X-Request-Id")} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in the log: %s", want, text)
		}
	}
	if strings.Contains(text.String(), "hunter2") {
		t.Errorf("the query is in the log: %s", text)
	}
	if b := serve(httpapi.NewHandler(opts), request(http.MethodGet, "/nope", "")); b.header.Get("X-Request-Id") == a.header.Get("X-Request-Id") {
		t.Error("two requests have the same identifier")
	}
}

// A request without a key cannot write a long line to the log.
func TestRequestLogIsShort(t *testing.T) {
	opts := options(validates)
	log, text := newLog()
	opts.Log = log
	long := strings.Repeat("x", 50_000)
	serve(httpapi.NewHandler(opts), request(long, "/"+long, ""))
	if n := len(text.String()); n > 1000 || !strings.Contains(text.String(), "path=/xxx") {
		t.Errorf("%d bytes were logged: %.1000s", n, text)
	}
}

func TestEveryAnswerForbidsSniffing(t *testing.T) {
	for _, path := range []string{"/health", "/docs", "/redoc", "/openapi.json", "/nope"} {
		a := serve(handler(validates), request(http.MethodGet, path, ""))
		if got := a.header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options is %q", path, got)
		}
	}
}

// A door that streams can flush behind the middleware.
func TestMountedDoorsStream(t *testing.T) {
	opts := options(validates)
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Flusher); !ok {
			t.Error("no Flusher")
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})}
	w := httptest.NewRecorder()
	httpapi.NewHandler(opts).ServeHTTP(w, request(http.MethodGet, "/mounted", ""))
	if !w.Flushed {
		t.Error("nothing was flushed")
	}
}
