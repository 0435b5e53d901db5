package metrics

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/slicelb/slicelb/api"
)

// collector gives a reading's values to Prometheus' own registry.
type collector struct {
	reading *Reading
	descs   []*prometheus.Desc // of families
}

func newCollector(r *Reading) *collector {
	c := &collector{reading: r}
	for _, f := range families {
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
	for i, f := range families {
		desc := c.descs[i]
		if f.latency != nil {
			if l := f.latency(c.reading); l != nil {
				out <- constHistogram(desc, l)
			}
			continue
		}
		kind := prometheus.GaugeValue
		if f.Type == counter {
			kind = prometheus.CounterValue
		}
		f.collect(c.reading, func(v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
		})
	}
}

func constHistogram(desc *prometheus.Desc, l *api.Latency) prometheus.Metric {
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

// What is written is what Prometheus' own library writes, which also refuses
// metrics that are there twice, and labels that do not fit.
func TestAgainstLibrary(t *testing.T) {
	r := example()
	r.Status.VIPs[0].Frontends = nil
	r.Status.Version = "a \\ \"quoted\"\nversion"
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(r))
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	out := expfmt.NewEncoder(&want, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range gathered {
		if err := out.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	own := &text{}
	for i := range families {
		own.family(&families[i], r)
	}
	lines := func(s string) []string { return slices.Sorted(slices.Values(strings.Split(s, "\n"))) }
	if diff := cmp.Diff(lines(want.String()), lines(string(own.b))); diff != "" {
		t.Errorf("(-library +ours):\n%s", diff)
	}
}
