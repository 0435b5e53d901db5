package lb

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
)

// sum stands for a VIP's content: equal sums, equal content.
type sum [16]byte

// seal computes the sums of a finished VIP.
func (v *VIP) seal() {
	h := sealer{h: sha256.New()}
	h.str(v.Name)
	h.num(uint64(v.Family), uint64(v.Algorithm), uint64(v.Affinity), uint64(len(v.Backends)))
	for _, b := range v.Backends {
		h.addr(b.Addr)
		h.num(uint64(b.State))
	}
	h.num(uint64(len(v.Pools)))
	for _, p := range v.Pools {
		h.num(uint64(len(p)))
		for _, s := range p {
			h.num(uint64(s.Backend)<<32|uint64(s.Slots), uint64(s.Weight))
		}
	}
	h.num(uint64(v.Default.Action), uint64(v.Default.Pool), uint64(len(v.Views)))
	for _, w := range v.Views {
		h.str(w.Group)
		h.num(uint64(w.Action), uint64(w.Pool))
	}
	v.tables = h.sum()
	for _, f := range v.Frontends {
		h.addr(f.Addr)
		h.num(uint64(f.Proto))
	}
	v.whole = h.sum()
}

// sealer feeds a hash without ambiguity: every string has its length before it.
type sealer struct {
	h   hash.Hash
	buf []byte
}

func (s *sealer) num(values ...uint64) {
	for _, v := range values {
		s.buf = binary.LittleEndian.AppendUint64(s.buf, v)
	}
}

func (s *sealer) str(v string) {
	s.num(uint64(len(v)))
	s.buf = append(s.buf, v...)
}

func (s *sealer) addr(a netip.AddrPort) {
	b := a.Addr().As16()
	s.num(uint64(a.Port()))
	s.buf = append(s.buf, b[:]...)
}

func (s *sealer) sum() (out sum) {
	s.h.Write(s.buf)
	s.buf = s.buf[:0]
	copy(out[:], s.h.Sum(nil))
	return out
}
