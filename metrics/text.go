package metrics

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/slicelb/slicelb/api"
)

// text is Prometheus' text format, written as values come: with 10,000 VIPs there
// are some 170,000 of them, and nothing is kept for each.
type text struct {
	b []byte
}

var (
	escapeValue = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)

func (x *text) family(f *family, r *Reading) {
	begin := len(x.b)
	x.add("# HELP ", f.Name, " ", escapeHelp.Replace(f.Help), "\n# TYPE ", f.Name, " ", string(f.Type), "\n")
	head := len(x.b)
	if f.latency != nil {
		if l := f.latency(r); l != nil {
			x.histogram(f.Name, l)
		}
	} else {
		order := make([]int, len(f.Labels)) // labels by name
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return strings.Compare(f.Labels[a], f.Labels[b]) })
		f.collect(r, func(v float64, values ...string) {
			x.add(f.Name)
			for n, i := range order {
				sep := ","
				if n == 0 {
					sep = "{"
				}
				x.add(sep, f.Labels[i], `="`)
				x.value(values[i])
				x.add(`"`)
			}
			if len(order) > 0 {
				x.add("}")
			}
			x.number(v)
		})
	}
	if len(x.b) == head {
		x.b = x.b[:begin] // nothing to tell
	}
}

func (x *text) histogram(name string, l *api.Latency) {
	var n uint64
	for _, b := range l.Buckets {
		n += b.Count
		if b.Most == 0 {
			continue
		}
		x.add(name, `_bucket{le="`)
		x.b = strconv.AppendFloat(x.b, b.Most.Seconds(), 'g', -1, 64)
		x.add(`"}`)
		x.number(float64(n))
	}
	x.add(name, `_bucket{le="+Inf"}`)
	x.number(float64(l.Count))
	x.add(name, "_sum")
	x.number(l.Sum.Seconds())
	x.add(name, "_count")
	x.number(float64(l.Count))
}

func (x *text) add(parts ...string) {
	for _, s := range parts {
		x.b = append(x.b, s...)
	}
}

func (x *text) value(s string) {
	if strings.ContainsAny(s, "\\\n\"") {
		s = escapeValue.Replace(s)
	}
	x.b = append(x.b, s...)
}

func (x *text) number(v float64) {
	x.b = append(x.b, ' ')
	if v == math.Trunc(v) && math.Abs(v) < 1e6 {
		x.b = strconv.AppendInt(x.b, int64(v), 10)
	} else {
		x.b = strconv.AppendFloat(x.b, v, 'g', -1, 64)
	}
	x.b = append(x.b, '\n')
}
