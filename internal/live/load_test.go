package live

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// load is clients that connect to the VIP without pause.
type load struct {
	h       *host
	clients sync.WaitGroup
	stop    func()
	results [][]kerneltest.Connection // of each client
	done    atomic.Int64              // connects of all
}

// load starts clients; they end with the test at the latest.
func (h *host) load(clients int) *load {
	h.Helper()
	ended := make(chan struct{})
	l := &load{h: h, stop: sync.OnceFunc(func() { close(ended) }), results: make([][]kerneltest.Connection, clients)}
	for i := range clients {
		c := kerneltest.Start(h, h.root)
		l.clients.Go(func() {
			for {
				r, err := c.Run(kerneltest.Load{To: vip, Timeout: 100 * time.Millisecond})
				if err != nil {
					h.Error(err)
					return
				}
				l.results[i] = append(l.results[i], r.Connections...)
				l.done.Add(int64(len(r.Connections)))
				select {
				case <-ended:
					return
				default:
				}
			}
		})
	}
	h.Cleanup(func() { l.end() })
	return l
}

// more returns when so many connects more have been made.
func (l *load) more(n int64) {
	l.h.Helper()
	from := l.done.Load()
	l.h.until("more connects", func() bool { return l.done.Load() >= from+n }, l.h.log.String)
}

// end stops the clients and returns what they have made.
func (l *load) end() []kerneltest.Connection {
	l.stop()
	l.clients.Wait()
	return slices.Concat(l.results...)
}
