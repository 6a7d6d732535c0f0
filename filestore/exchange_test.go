package filestore_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/filestore"
)

// hung is a store whose deletions do not return by themselves.
type hung struct{ filestore.Files }

func (hung) Put(context.Context, string, io.Reader) (filestore.Info, error) {
	return filestore.Info{ID: "a"}, nil
}

func (hung) Delete(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// The end of an exchange with many files is bounded even if the store hangs.
func TestExchangeOfAHungStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := filestore.NewExchange(hung{}, slog.New(slog.DiscardHandler))
		for range 100 {
			if _, err := e.Keep(t.Context(), "a", strings.NewReader("")); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		e.End(t.Context())
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}
