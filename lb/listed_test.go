package lb

import (
	"testing"

	"github.com/slicelb/slicelb/internal/kernels"
)

// Of the tests for other kernels none is lost. fault F25
func TestListed(t *testing.T) {
	if err := kernels.CheckList("."); err != nil {
		t.Error(err)
	}
}
