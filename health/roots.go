package health

import (
	"crypto/x509"
	"fmt"
	"os"
)

// maxRoots bounds a file of certificates.
const maxRoots = 4 << 20

// ReadRoots reads the certificates that a check trusts, as PEM.
func ReadRoots(path string) (*x509.CertPool, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxRoots:
		return nil, fmt.Errorf("%s: no regular file of at most %d bytes", path, maxRoots)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: no certificate in it", path)
	}
	return pool, nil
}
