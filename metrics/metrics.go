// Package metrics is what Prometheus is told. It owns the names, the labels and
// the help of every metric, and turns a Reading of the daemon into text. It
// reads no map by itself and keeps nothing between two readings.
//
// Labels hold what the configuration says (names of VIPs and groups, addresses
// of backends) and words of this program, never the name of a cgroup or unit:
// those are other people's, and without bound. Split children count with the
// group that they are of.
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
	Tables     []Table
	Ready      bool
	GoVersion  string
	Causes     map[string]uint64 // looks at every directory, by cause
	Reconciler lb.Stats
	Reconciled api.Latency
	Health     health.Stats
}

// Table is a bounded table of the data plane.
type Table struct {
	Name string
	api.Usage
}

// Type says what may be done with a metric.
type Type string

const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Family is one metric.
type Family struct {
	Name   string
	Type   Type
	Help   string
	Labels []string

	collect func(*Reading, emit)
	latency func(*Reading) *api.Latency // of a Histogram; nil: nothing to tell
}

// emit takes a value, and a value for each of the family's labels.
type emit func(value float64, labels ...string)

// Registry holds every Family, and what the Go runtime and the kernel say of
// the process. Read is asked once for each Gather.
type Registry struct {
	registry *prometheus.Registry
}

// New makes a registry.
func New(read func(context.Context) (*Reading, error)) *Registry {
	return newRegistry(prometheus.NewRegistry(), read)
}

func newRegistry(r *prometheus.Registry, read func(context.Context) (*Reading, error)) *Registry {
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(read),
	)
	return &Registry{r}
}

// Text is every metric in Prometheus' text format.
func (r *Registry) Text(context.Context) ([]byte, error) {
	families, err := r.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	var b bytes.Buffer
	out := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := out.Encode(f); err != nil {
			return nil, fmt.Errorf("write metric %s: %w", f.GetName(), err)
		}
	}
	return b.Bytes(), nil
}

// collector gives a reading's values.
type collector struct {
	read  func(context.Context) (*Reading, error)
	descs []*prometheus.Desc // of families
}

func newCollector(read func(context.Context) (*Reading, error)) *collector {
	c := &collector{read: read}
	for _, f := range Families {
		c.descs = append(c.descs, prometheus.NewDesc(f.Name, f.Help, f.Labels, nil))
	}
	return c
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	r, err := c.read(context.Background())
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.descs[0], err)
		return
	}
	for i, f := range Families {
		desc := c.descs[i]
		switch {
		case f.latency != nil:
			if l := f.latency(r); l != nil {
				out <- histogram(desc, l)
			}
		default:
			kind := prometheus.GaugeValue
			if f.Type == Counter {
				kind = prometheus.CounterValue
			}
			f.collect(r, func(v float64, labels ...string) {
				out <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
			})
		}
	}
}

func histogram(desc *prometheus.Desc, l *api.Latency) prometheus.Metric {
	buckets := make(map[float64]uint64, len(l.Buckets))
	var n uint64
	for _, b := range l.Buckets {
		n += b.Count
		if b.Most != 0 {
			buckets[b.Most.Seconds()] = n
		}
	}
	return prometheus.MustNewConstHistogram(desc, l.Count, l.Sum.Seconds(), buckets)
}
