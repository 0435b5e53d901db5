package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// What the kernel counts as open is shown with the VIP, each backend, and what
// explain says that a caller gets.
func TestLiveIsShown(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	dp.live = map[uint32]uint64{1: 7}
	p := start(t, oneVIP, dp, nil)
	p.await("well", well)
	v, err := p.client.VIP(t.Context(), "db")
	if err != nil || v.Live != 7 || v.Backends[0].Live != 7 {
		t.Errorf("%+v, %v", v, err)
	}
	x, err := p.client.Explain(t.Context(), api.Question{Address: v.Frontends[0], Cgroup: "/"})
	if err != nil || len(x.Backends) != 1 || x.Backends[0].Live != 7 {
		t.Errorf("%+v, %v", x, err)
	}
}

// recounter is a data plane of which a recount fails, then corrects.
type recounter struct {
	dataPath
	at []time.Time
}

func (r *recounter) Recount() (int, error) {
	r.at = append(r.at, time.Now())
	switch len(r.at) {
	case 1, 2:
		return 0, errors.New("no")
	}
	return len(r.at) - 3, nil
}

// Recounts come twice at once, then every ten seconds; a failure is said once.
func TestRecount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		var said strings.Builder
		r := &recounter{}
		begun := time.Now()
		recount(ctx, r, slog.New(slog.NewTextHandler(&said, nil)))
		if len(r.at) != 7 || r.at[0] != begun || r.at[1] != begun.Add(time.Second) || r.at[6] != begun.Add(51*time.Second) {
			t.Errorf("recounted at %v", r.at)
		}
		if n := strings.Count(said.String(), "cannot be checked"); n != 1 {
			t.Errorf("said %d times:\n%s", n, said.String())
		}
		if !strings.Contains(said.String(), "backends=1") {
			t.Errorf("said:\n%s", said.String())
		}
	})
}
