package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// diagDestroy closes sockets of the calling thread's network namespace through
// sock_diag, one by one. The kernel finds each by its addresses and compares the
// cookie, so that it is that socket and no other that has the addresses now.
func diagDestroy(list []doomedSocket) error {
	var errs []error
	for _, s := range list {
		req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
		req.AddData(diagRequest(s))
		err := askDiag(req)
		switch {
		case err == nil, errors.Is(err, unix.ESTALE):
			// Closed, or gone by itself: its addresses are another's.
		case errors.Is(err, unix.ENOENT):
			// Gone by itself; or the kernel's module for it cannot be loaded.
			errs = append(errs, fmt.Errorf("close %s to %s: %w (modules tcp_diag and udp_diag)", s.local, s.remote, err))
		case errors.Is(err, unix.EOPNOTSUPP):
			return &FeatureError{
				Feature: "close sockets",
				Hint:    "the kernel needs bpf_sock_destroy (Linux 6.5) or CONFIG_INET_DIAG_DESTROY", Err: err,
			}
		default:
			errs = append(errs, fmt.Errorf("close %s to %s: %w", s.local, s.remote, err))
		}
		if len(errs) >= maxDiagErrors {
			break
		}
	}
	return errors.Join(errs...)
}

// askDiag is what tests replace to be a kernel that closes no sockets.
var askDiag = func(req *nl.NetlinkRequest) error {
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// maxDiagErrors is how many errors say enough.
const maxDiagErrors = 4

// diagRequest is struct inet_diag_req_v2.
type diagRequest doomedSocket

func (r diagRequest) Len() int { return 56 }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, 0, r.Len())
	b = append(b, r.family, r.proto, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // every state
	b = binary.BigEndian.AppendUint16(b, r.local.Port())
	b = binary.BigEndian.AppendUint16(b, r.remote.Port())
	for _, a := range []netip.Addr{r.local.Addr(), r.remote.Addr()} {
		var field [16]byte
		if r.family == unix.AF_INET {
			four := a.As4()
			copy(field[:], four[:])
		} else {
			field = a.As16()
		}
		b = append(b, field[:]...)
	}
	b = binary.NativeEndian.AppendUint32(b, r.device)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.cookie))
	return binary.NativeEndian.AppendUint32(b, uint32(r.cookie>>32))
}
