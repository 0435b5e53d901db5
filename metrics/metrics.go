// Package metrics is what Prometheus is told. It owns the names, the labels and
// the help of every metric, and turns a Reading of the daemon into text. It
// reads no map by itself and keeps nothing between two readings.
//
// Labels hold what the configuration says (names of VIPs and groups, addresses
// of backends) and words of this program, never the name of a cgroup or unit:
// those are other people's, and without bound. Split children count with the
// group that they are of. Where the configuration asks for them one by one, and says
// how many, their names are labels too, quoted unless they are plain.
package metrics

import (
	"bytes"
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// ContentType is what Text returns.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Reading is the daemon at one moment.
type Reading struct {
	Status     *api.Status // with VIPs, groups and counters
	Calls      []api.Calls
	Networks   []api.Calls // to networks of rules, by group
	Children   []ChildCalls
	Uncounted  map[string]int // split children without metrics of their own, by the groups that ask for them
	Rules      []api.Rule
	Tables     []Table
	Ready      bool
	GoVersion  string
	Causes     map[string]uint64 // looks at every directory, by cause
	Reconciler lb.Stats
	Reconciled api.Latency
	Health     health.Stats
}

// ChildCalls is what the calls of one split child of a group came to, to a VIP or,
// with none, to networks of rules. The group's Calls have them, too.
type ChildCalls struct {
	api.Calls
	Child string // other people's text
}

// Table is a bounded table of the data plane.
type Table struct {
	Name string
	api.Usage
}

// kind says what may be done with a metric.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// family is one metric.
type family struct {
	Name   string
	Type   kind
	Help   string
	Labels []string

	collect func(*Reading, emit)
	latency func(*Reading) *api.Latency // of a histogram; nil: nothing to tell
}

// emit takes a value, and a value for each of the family's labels.
type emit func(value float64, labels ...string)

// Registry holds every family, and what the Go runtime and the kernel say of
// the process.
type Registry struct {
	process *prometheus.Registry
	read    func(context.Context) (*Reading, error)
}

// New makes a registry. read is asked once for each Text.
func New(read func(context.Context) (*Reading, error)) *Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Registry{r, read}
}

// Text is every metric in Prometheus' text format.
func (r *Registry) Text(ctx context.Context) ([]byte, error) {
	reading, err := r.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	own := &text{}
	for i := range families {
		own.family(&families[i], reading)
	}
	gathered, err := r.process.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	b := bytes.NewBuffer(own.b)
	out := expfmt.NewEncoder(b, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range gathered {
		if err := out.Encode(f); err != nil {
			return nil, fmt.Errorf("write metric %s: %w", f.GetName(), err)
		}
	}
	return b.Bytes(), nil
}
