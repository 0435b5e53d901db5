package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/metrics"
	"github.com/slicelb/slicelb/unitwatch"
)

// large is a daemon with a data plane in the kernel, attached nowhere, of so many
// VIPs of three backends.
func large(t testing.TB, vips int) *daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var toml strings.Builder
	for i := range vips {
		fmt.Fprintf(&toml, "[vip.v%d]\nfrontends = [\"10.%d.%d.%d:80\"]\n", i, 96+i>>16, i>>8&255, i&255)
		for b := range 3 {
			fmt.Fprintf(&toml, "[[vip.v%d.backend]]\naddress = \"172.%d.%d.%d:80\"\n", i, 16+b, i>>8&255, i&255)
		}
	}
	cfg, err := config.Parse("test", []byte(toml.String()))
	if err != nil {
		t.Fatal(err)
	}
	src, err := newSource(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := bare(t, fdstoretest.New(t), nil)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		d.shut()
	})
	d.open = openKernel
	d.running, d.snap = src, &unitwatch.Snapshot{Tree: src.tree, Walked: d.started}
	if _, err := d.apply(ctx, src, d.snap); err != nil {
		t.Fatal(err)
	}
	d.publish()
	return d
}

// BenchmarkMetrics is what one scrape costs: in time, and of a processor, which a
// busy machine does not make more. The reading is the part that looks at the maps.
func BenchmarkMetrics(b *testing.B) {
	for _, vips := range []int{100, 10000} {
		d := large(b, vips)
		b.Run(fmt.Sprintf("scrape/%d", vips), func(b *testing.B) {
			registry := metrics.New(answers{d}.reading)
			b.ReportAllocs()
			size, before := 0, processor(b)
			for b.Loop() {
				text, err := registry.Text(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				size = len(text)
			}
			b.ReportMetric((processor(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(size)/1e6, "MB/scrape")
		})
		b.Run(fmt.Sprintf("reading/%d", vips), func(b *testing.B) {
			before := processor(b)
			for b.Loop() {
				if _, err := (answers{d}).counters(d.view.Load()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((processor(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// processor is how long this process has run so far.
func processor(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
