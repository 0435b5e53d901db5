// Package labtest gives tests a [lab.Lab].
package labtest

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/slicelb/slicelb/internal/lab"
)

// Boot boots a lab for one test and stops it when the test is over. Where no
// lab is possible the test is skipped, with the reason; with CI=true it fails.
func Boot(t testing.TB) *lab.Lab {
	t.Helper()
	Require(t)
	// Not the test's own context: that one ends before the test's clean-ups run.
	l, err := lab.Start(context.Background(), lab.Options{Log: t.Logf})
	if err != nil {
		t.Fatalf("boot the lab: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Errorf("stop the lab: %v", err)
		}
	})
	return l
}

var shared struct {
	sync.Mutex
	lab *lab.Lab
	err error
}

// Shared returns the one lab of this test binary, which the first call boots.
// [Main] stops it. Tests that share it tell their units and cgroups apart by
// name.
func Shared(t testing.TB) *lab.Lab {
	t.Helper()
	Require(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.lab == nil && shared.err == nil {
		shared.lab, shared.err = lab.Start(context.Background(), lab.Options{Log: t.Logf})
	}
	if shared.err != nil {
		t.Fatalf("boot the shared lab: %v", shared.err)
	}
	return shared.lab
}

// Main runs a package's tests, stops the shared lab and returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.lab != nil {
		if err := shared.lab.Stop(); err != nil {
			os.Stderr.WriteString("stop the shared lab: " + err.Error() + "\n")
			return 1
		}
	}
	return code
}

// Require skips a test where no lab is possible, with the reason; with CI=true
// it fails.
func Require(t testing.TB) {
	t.Helper()
	if err := lab.Supported(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}
