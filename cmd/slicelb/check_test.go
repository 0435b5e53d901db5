package main

import (
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
)

// What no state can be made of is wrong with the configuration, whatever the error.
func TestCheckOfWhatCannotBeCompiled(t *testing.T) {
	cfg, err := config.Parse("a.toml", []byte("[vip.db]\nfrontends = [\"10.96.0.10:80\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if bad := unfit(cfg); bad != nil {
		t.Errorf("as it is: %v", bad)
	}
	cfg.VIPs[0].Except = []string{"nobody"}
	if bad := unfit(cfg); bad == nil || !strings.Contains(bad.Problems[0].Message, `cannot be used: vip db: unknown group "nobody"`) {
		t.Errorf("%v", bad)
	}
}
