package bpf

import "testing"

// A start waits for the verifier, and an upgrade does; so does each test here, ten
// times as long where the machine is emulated. A value that a program remembers from
// one branch alone may have the verifier walk everything after it twice.
func TestVerifierWork(t *testing.T) {
	p := newPlane(t, small)
	const most = 600_000 // instructions; Linux 6.18 walks 468,298
	total := uint32(0)
	for name, prog := range p.programs {
		info, err := prog.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if !ok {
			t.Fatal("the kernel does not tell, as it has since Linux 5.16")
		}
		t.Logf("%s: %d", name, n)
		total += n
	}
	t.Logf("%d in all", total)
	if total > most {
		t.Errorf("%d instructions in all, at most %d", total, most)
	}
}
