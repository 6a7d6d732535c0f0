package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// objectKind is a kind of object, as rights have it.
type objectKind struct{ group, name string }

func (k objectKind) String() string {
	if k.group == "" {
		return k.name
	}
	return k.name + "." + k.group
}

// right is what an account may do with objects of a kind.
type right struct {
	objectKind
	verbs []string
}

// needed returns the rights of a server in the sandboxes' namespace: those of the chart's Role.
func (b *Backend) needed() []right {
	return append([]right{
		{objectKind{"", "pods"}, []string{"get", "list", "watch", "patch", "delete"}},
		{objectKind{"coordination.k8s.io", "leases"}, []string{"get", "list", "watch", "create", "update", "delete"}},
	}, b.claimer.Rights()...)
}

// listed returns rights as a text.
func listed(rights []right) string {
	texts := make([]string, 0, len(rights))
	for _, r := range rights {
		texts = append(texts, fmt.Sprintf("%s (%s)", r.name, strings.Join(r.verbs, ", ")))
	}
	last := len(texts) - 1
	return strings.Join(texts[:last], ", ") + " and " + texts[last]
}

// review sends a question about this account's own rights, which every account may ask.
func review[R any](ctx context.Context, b *Backend, kind string, question R) (answer R, err error) {
	text, err := json.Marshal(question)
	if err != nil {
		return answer, err
	}
	path := "/apis/authorization.k8s.io/v1/" + kind
	request := b.api.raw.Post().AbsPath(path).SetHeader("Content-Type", runtime.ContentTypeJSON).SetHeader("Accept", runtime.ContentTypeJSON)
	body, err := request.Body(text).Do(ctx).Raw()
	if err != nil {
		return answer, b.explain("create "+kind, err)
	}
	return answer, json.Unmarshal(body, &answer)
}

// examineRights compares the rights of this account with those that it needs. What it has beyond
// them, an attacker who takes over a server has too.
func (b *Backend) examineRights(ctx context.Context) []Finding {
	own, err := review(ctx, b, "selfsubjectrulesreviews", authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: b.api.namespace},
	})
	var lacking []string
	if err == nil {
		lacking, err = b.lacking(ctx, own.Status.ResourceRules)
	}
	if err != nil {
		return []Finding{{Doubtful, "the rights of this account could not be examined: " + err.Error()}}
	}
	var all []Finding
	if len(lacking) > 0 {
		all = append(all, Finding{Failing, fmt.Sprintf("this account may not %s in the namespace %q: give it the Role of Vivarium's chart there",
			strings.Join(lacking, ", "), b.api.namespace)})
	}
	if more := b.beyond(own.Status.ResourceRules); len(more) > 0 {
		all = append(all, Finding{Doubtful, fmt.Sprintf("this account may do more in the namespace %q than a server needs: %s; give it no other rights there than the Role of Vivarium's chart",
			b.api.namespace, strings.Join(more, ", "))})
	}
	if len(all) == 0 {
		all = append(all, Finding{Good, fmt.Sprintf("this account has the rights that a server needs in the namespace %q, and no others there", b.api.namespace)})
	}
	return all
}

// lacking returns the rights that are needed and not there. Rules may be incomplete: what they do
// not have is asked for.
func (b *Backend) lacking(ctx context.Context, rules []authorizationv1.ResourceRule) ([]string, error) {
	var all []string
	for _, r := range b.needed() {
		what := r.objectKind
		for _, verb := range r.verbs {
			if slices.ContainsFunc(rules, func(rule authorizationv1.ResourceRule) bool { return allows(rule, what, verb) }) {
				continue
			}
			answer, err := review(ctx, b, "selfsubjectaccessreviews", authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: b.api.namespace, Verb: verb, Group: what.group, Resource: what.name,
				}},
			})
			if err != nil {
				return nil, err
			}
			if !answer.Status.Allowed {
				all = append(all, verb+" "+what.String())
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

const anything = "*"

// allows reports whether a rule allows something for all objects.
func allows(rule authorizationv1.ResourceRule, what objectKind, verb string) bool {
	has := func(list []string, name string) bool {
		return slices.Contains(list, name) || slices.Contains(list, anything)
	}
	return len(rule.ResourceNames) == 0 && has(rule.APIGroups, what.group) && has(rule.Resources, what.name) && has(rule.Verbs, verb)
}

// beyond returns the rights that rules give and a server does not need. Every account may ask
// about itself, and read which authorities the cluster trusts.
func (b *Backend) beyond(rules []authorizationv1.ResourceRule) []string {
	common := []string{"authentication.k8s.io", "authorization.k8s.io", "certificates.k8s.io"}
	needed := make(map[objectKind][]string)
	for _, r := range b.needed() {
		needed[r.objectKind] = r.verbs
	}
	verbs := make(map[string][]string) // by the name of the kind
	for _, rule := range rules {
		if allows(rule, objectKind{anything, anything}, anything) {
			return []string{"everything"}
		}
		for _, group := range rule.APIGroups {
			if slices.Contains(common, group) {
				continue
			}
			for _, name := range rule.Resources {
				what := objectKind{group, name}
				for _, verb := range rule.Verbs {
					if !slices.Contains(needed[what], verb) && !slices.Contains(verbs[what.String()], verb) {
						verbs[what.String()] = append(verbs[what.String()], verb)
					}
				}
			}
		}
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(verbs)) {
		all = append(all, fmt.Sprintf("%s %s", strings.Join(verbs[name], " and "), name))
	}
	return all
}
