package filestore_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/filestore"
)

// parts is an object store with the API of S3. It records the sizes of the requests.
type parts struct {
	mu    sync.Mutex
	sizes []int64
}

func (p *parts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const answer = `<R><Bucket>bucket</Bucket><Key>k</Key><UploadId>1</UploadId><IsTruncated>false</IsTruncated></R>`
	n, _ := io.Copy(io.Discard, r.Body)
	if r.Method == http.MethodPut && !strings.HasSuffix(r.URL.Path, ".json") {
		p.mu.Lock()
		p.sizes = append(p.sizes, n)
		p.mu.Unlock()
	}
	w.Header().Set("ETag", `"e"`)
	if r.Method != http.MethodPut {
		_, _ = fmt.Fprint(w, answer)
	}
}

func (p *parts) sorted() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(slices.Values(p.sizes))
}

// An upload to S3 buffers small parts from the first one on.
func TestPartsOfUploads(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for _, test := range []struct {
		name          string
		size, largest int64
		want          []int64
	}{
		{"one piece", 5<<20 - 1, 20 << 20, []int64{5<<20 - 1}},
		{"parts", 11 << 20, 20 << 20, []int64{1 << 20, 5 << 20, 5 << 20}},
		{"S3 takes 10,000 parts", 7 << 20, 60_000 << 20, []int64{7<<20 - 6291457, 6291457}},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen := new(parts)
			objects := httptest.NewServer(seen)
			defer objects.Close()
			s, err := filestore.Open(t.Context(), filestore.Options{
				URL:          "s3://bucket?region=us-east-1&use_path_style=true&endpoint=" + objects.URL,
				MaxFileBytes: test.largest, MaxBytes: test.largest,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if _, err := s.Put(t.Context(), "a", bytes.NewReader(make([]byte, test.size))); err != nil {
				t.Fatal(err)
			}
			if sizes := seen.sorted(); !slices.Equal(sizes, test.want) {
				t.Errorf("sent: %d", sizes)
			}
		})
	}
}
