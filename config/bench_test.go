package config

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkParse reads 10,000 VIPs of 10 backends each, and 1,000 groups.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "[group.g%d]\nslices = [\"g%d.slice\"]\n", i, i)
	}
	for v := range 10000 {
		at := fmt.Sprintf("10.97.%d.%d:80", v>>8, v&255)
		fmt.Fprintf(&text, "[vip.v%d]\nfrontends = [%q, %q]\n", v, at, at+"/udp")
		for i := range 10 {
			fmt.Fprintf(&text, "[[vip.v%d.backend]]\naddress = \"127.%d.%d.%d:7001\"\n", v, i+1, v>>8, v&255)
		}
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("bench.toml", data); err != nil {
			b.Fatal(err)
		}
	}
}
