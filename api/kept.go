package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// keepFor is how long an answer that costs something stands for those who ask
// again: anybody may, as often as they like.
const keepFor = time.Second

// Kept is an answer that is made once for all who ask within a second, by one
// at a time; an error stands for as long. The bytes are shared: a client that
// reads slowly holds no copy of its own.
type Kept struct {
	Type string // Content-Type

	// Make's context ends with nobody's request. What it returns is not changed
	// afterwards.
	Make func(context.Context) ([]byte, error)

	mu            sync.Mutex
	at            time.Time
	plain, zipped []byte
	err           error
}

func (k *Kept) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	zip := strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
	b, err := k.read(r.Context(), zip)
	if err != nil {
		http.Error(w, err.Error(), asError(err).head(w.Header()))
		return
	}
	h := w.Header()
	h.Set("Content-Type", k.Type)
	h.Set("Vary", "Accept-Encoding")
	if zip {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b) // who does not read it, does not get it
}

func (k *Kept) read(ctx context.Context, zip bool) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at.IsZero() || time.Since(k.at) >= keepFor {
		// Not the asker's context: others wait for it too.
		k.plain, k.err = k.Make(context.WithoutCancel(ctx))
		k.at, k.zipped = time.Now(), nil
	}
	if k.err != nil || !zip {
		return k.plain, k.err
	}
	if k.zipped == nil {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(k.plain); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		k.zipped = b.Bytes()
	}
	return k.zipped, nil
}
