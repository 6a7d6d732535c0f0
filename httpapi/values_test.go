package httpapi_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vivarium-sandbox/vivarium/httpapi"
)

const (
	mostValues = 20_000
	manyValues = "too many JSON values: at most 20000 opening brackets and commas are allowed outside of strings"
)

// values returns a list of n numbers, with n brackets and commas.
func values(n int) string { return "[" + strings.Repeat("0,", n-1) + "0]" }

// The number of values of a body is bounded, since they take many times the memory of
// their text. The size of its strings is not.
func TestManyValues(t *testing.T) {
	tooMany := `{"detail": [{"type": "too_long", "loc": ["body"], "msg": "` + manyValues + `", "input": null}]}`
	commas := strings.Repeat(`,[{\"`, mostValues)
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"as many as allowed":      {`{"code": "", "x": ` + values(mostValues-2) + `}`, http.StatusOK},
		"one more":                {`{"code": "", "x": ` + values(mostValues-1) + `}`, http.StatusUnprocessableEntity},
		"objects":                 {`{"code": "", "x": [` + strings.Repeat(`{"a":0},`, mostValues) + `0]}`, http.StatusUnprocessableEntity},
		"lists":                   {`{"code": "", "x": [` + strings.Repeat(`[],`, mostValues) + `0]}`, http.StatusUnprocessableEntity},
		"members":                 {`{"code": ""` + strings.Repeat(`,"":0`, mostValues) + `}`, http.StatusUnprocessableEntity},
		"deep ones":               {`{"code": "", "x": ` + strings.Repeat(`[`, mostValues), http.StatusUnprocessableEntity},
		"after a string's escape": {`{"code": "\\\"\\", "x": ` + values(mostValues) + `}`, http.StatusUnprocessableEntity},
		"what is text":            {`{"code": "` + commas + `", "` + commas + `": "\\"}`, http.StatusOK},
	} {
		for _, path := range []string{"/v1/execute", "/v1/execute/stream"} {
			r := request(http.MethodPost, path, test.body)
			r.Body = io.NopCloser(iotest.HalfReader(r.Body))
			a := serve(handler(validates), r)
			if a.status != test.status {
				t.Errorf("%s, %s: %d %.200s", path, name, a.status, a.body)
			}
			if a.status != http.StatusOK {
				a.want(t, test.status, tooMany)
			}
		}
	}
}

// Another door stops reading such a body. The rest is discarded, so that a client that is
// still sending reads the answer.
func TestManyValuesForAnotherDoor(t *testing.T) {
	body := strings.NewReader(values(10 * mostValues))
	opts := options(validates)
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if text, err := io.ReadAll(r.Body); err == nil || err.Error() != manyValues || len(text) > 2*mostValues {
			t.Errorf("it reads %d bytes and %v", len(text), err)
		}
	})}
	r := request(http.MethodPost, "/mounted", "{}")
	r.Body, r.ContentLength = io.NopCloser(body), body.Size()
	serve(httpapi.NewHandler(opts), r)
	if body.Len() > 0 {
		t.Errorf("%d bytes are left", body.Len())
	}
}
