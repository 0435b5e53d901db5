package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
)

// parts are those that tests of tracking need; each takes its arguments and
// returns an exit status.
var parts = map[string]func(args []string) int{
	"latency":      playLatency,
	"storm":        playStorm,
	"forger":       playForger,
	"crowd":        playCrowd,
	"stale":        playStale,
	"sample":       playSample,
	"compare":      playCompare,
	"firsts":       playFirsts,
	"units":        playUnits,
	"churn":        playChurn,
	"dial":         playDial,
	"theirs":       playTheirs,
	"theirs-count": playTheirCount,
	"hooks":        playHooks,
	"insist":       playInsist,
	"moved":        playMoved,
	"cycled":       playCycled,
}

// run has the test binary play a part to its end, and returns what it printed.
func (h *host) run(role string, args ...string) string {
	h.t.Helper()
	r := h.play("/roles", role, args...)
	r.stdin.Close()
	return r.end(h)
}

// end waits for a part's end and returns what it printed.
func (r *running) end(h *host) string {
	h.t.Helper()
	if err := r.cmd.Wait(); err != nil {
		h.t.Fatalf("%s: %v\n%s", r.cmd.Args[len(r.cmd.Args)-1], err, r.stderr.Bytes())
	}
	return r.out.all()
}

func (w *watched) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// fail says why a part could not be played.
func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// untilInputEnds is closed when standard input is.
func untilInputEnds() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	return done
}

// numbers reads the arguments that are numbers.
func numbers(args ...string) ([]int, error) {
	var out []int
	for _, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// playCrowd makes or removes cgroups: crowd make|remove SLICE COUNT.
func playCrowd(args []string) int {
	base := filepath.Join(lab.CgroupRoot, args[1])
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return fail(err)
	}
	prefix := strings.TrimSuffix(args[1], ".slice")
	slice := func(i int) string { return filepath.Join(base, fmt.Sprintf("%s-%d.slice", prefix, i/1000)) }
	scope := func(i int) string { return filepath.Join(slice(i), fmt.Sprintf("s%d.scope", i)) }
	if args[0] == "make" {
		if err := makeCgroup(base); err != nil {
			return fail(err)
		}
		for i := range count {
			if i%1000 == 0 {
				err = makeCgroup(slice(i))
			}
			if err = errors.Join(err, makeCgroup(scope(i))); err != nil {
				return fail(err)
			}
		}
		return 0
	}
	for i := range count {
		_ = os.Remove(filepath.Join(scope(i), "deep")) // most have none
		err = removeCgroup(scope(i))
		if i%1000 == 999 || i == count-1 {
			err = errors.Join(err, removeCgroup(slice(i)))
		}
		if err != nil {
			return fail(err)
		}
	}
	return 0
}

// makeCgroup makes a cgroup that may be there already.
func makeCgroup(path string) error {
	if err := os.Mkdir(path, 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// removeCgroup removes a cgroup that may be gone already.
func removeCgroup(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// playChurn makes and removes cgroups at a pace, below a slice: churn SLICE RATE
// COUNT. The newest hundred are always there. It prints how many a second there were,
// and when standard input ends it removes those that are left.
func playChurn(args []string) int {
	n, err := numbers(args[1:]...)
	if err != nil {
		return fail(err)
	}
	rate, count := n[0], n[1]
	base := filepath.Join(lab.CgroupRoot, args[0])
	if err := makeCgroup(base); err != nil {
		return fail(err)
	}
	const alive = 100
	path := func(i int) string { return filepath.Join(base, fmt.Sprintf("churn-%d.scope", i)) }
	begun := time.Now()
	for i := range count {
		if err := os.Mkdir(path(i), 0o755); err != nil {
			return fail(err)
		}
		if i >= alive {
			if err := os.Remove(path(i - alive)); err != nil {
				return fail(err)
			}
		}
		if i%100 == 99 {
			time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
	}
	fmt.Println(int(float64(count) / time.Since(begun).Seconds()))
	<-untilInputEnds()
	for i := max(0, count-alive); i < count; i++ {
		if err := os.Remove(path(i)); err != nil {
			return fail(err)
		}
	}
	return 0
}

// churn has cgroups come and go below web.slice.
func (h *host) churn(rate, count int) *running {
	h.t.Helper()
	r := h.play("/roles", "churn", "web.slice", strconv.Itoa(rate), strconv.Itoa(count))
	h.t.Cleanup(func() { r.stdin.Close(); r.cmd.Wait() })
	return r
}

// pace waits until a churn is through, its last cgroups still there, and returns how
// many it made and removed a second.
func (h *host) pace(churn *running) int {
	h.t.Helper()
	h.eventually(10*time.Minute, "cgroups have come and gone", func() bool {
		if h.gone(churn) {
			h.t.Fatalf("churn: %s", churn.stderr.Bytes())
		}
		return churn.out.last() != ""
	})
	n, err := numbers(churn.out.last())
	if err != nil {
		h.t.Fatal(err)
	}
	return n[0]
}
