package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore"
)

// lastGoodVersion is the layout of the memfd. A reader refuses what is newer.
const lastGoodVersion = 1

// lastGoodName, then the generation, is the memfd's name in the store.
const lastGoodName = "state-v1."

// maxLastGood bounds what is read back: every file of a configuration is at
// most 1 MiB.
const maxLastGood = 256 << 20

// lastGood is what the next process needs and no map holds: the configuration
// that runs, merged, so that files which have been broken since do no harm.
type lastGood struct {
	Version    int       `json:"version"`
	Generation uint64    `json:"generation"`
	Build      string    `json:"build"` // bpf.Build of the programs beside it
	Path       string    `json:"path"`
	Files      []string  `json:"files"`
	Loaded     time.Time `json:"loaded"`
	TOML       string    `json:"toml"` // by config.Render

	Standing []storedStanding `json:"standing,omitempty"` // of its backends
}

// seal writes l into a sealed memfd. The caller closes it.
func (l *lastGood) seal() (*os.File, error) {
	l.Version, l.Build = lastGoodVersion, bpf.Build()
	text, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("last good configuration: %w", err)
	}
	f, err := fdstore.Seal("slicelb-state", text)
	if err != nil {
		return nil, fmt.Errorf("last good configuration: %w", err)
	}
	return f, nil
}

func (l *lastGood) name() string { return lastGoodName + strconv.FormatUint(l.Generation, 10) }

// isLastGood reports whether a stored descriptor is a memfd of ours.
func isLastGood(name string) bool { return strings.HasPrefix(name, "state-v") }

// highestGeneration is that of the newest name, whether what it names can be
// read or not: a new state must not share a name with it.
func highestGeneration(fds []fdstore.FD) uint64 {
	var highest uint64
	for _, f := range fds {
		n, ok := strings.CutPrefix(f.Name, lastGoodName)
		if g, err := strconv.ParseUint(n, 10, 64); ok && err == nil {
			highest = max(highest, g)
		}
	}
	return highest
}

// older says whether a name is that of a memfd of a generation before read, which
// could be read: a kill left it beside the newer one.
func older(name, prefix string, read uint64) bool {
	n, ok := strings.CutPrefix(name, prefix)
	g, err := strconv.ParseUint(n, 10, 64)
	return ok && err == nil && g < read
}

// newestLastGood reads the newest state among the descriptors that can be read.
// Nil without an error means that there is none; err says why others were not
// taken, and may come with one that was.
func newestLastGood(fds []fdstore.FD) (*lastGood, error) {
	var newest *lastGood
	var errs []error
	for _, f := range fds {
		if !isLastGood(f.Name) {
			continue
		}
		l, err := readLastGood(f.FD)
		if err != nil {
			errs = append(errs, fmt.Errorf("stored state %s: %w", f.Name, err))
			continue
		}
		if newest == nil || l.Generation > newest.Generation {
			newest = l
		}
	}
	return newest, errors.Join(errs...)
}

func readLastGood(fd int) (*lastGood, error) {
	l := new(lastGood)
	if err := fdstore.Unseal(fd, maxLastGood, l); err != nil {
		return nil, err
	}
	if l.Version != lastGoodVersion {
		return nil, fmt.Errorf("version %d, this program knows %d", l.Version, lastGoodVersion)
	}
	return l, nil
}
