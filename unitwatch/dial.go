package unitwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
)

const systemBus = "unix:path=/run/dbus/system_bus_socket"

// DialSystemBus opens a socket to the system bus, of which the address may be
// in DBUS_SYSTEM_BUS_ADDRESS. Only unix sockets are supported.
func DialSystemBus(ctx context.Context) (io.ReadWriteCloser, error) {
	addresses := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if addresses == "" {
		addresses = systemBus
	}
	return dialAddresses(ctx, addresses)
}

// dialAddresses tries the addresses of a list in turn.
func dialAddresses(ctx context.Context, list string) (io.ReadWriteCloser, error) {
	var errs []error
	for address := range strings.SplitSeq(list, ";") {
		name, err := socketName(address)
		if err == nil {
			var d net.Dialer
			var conn net.Conn
			if conn, err = d.DialContext(ctx, "unix", name); err == nil {
				return conn, nil
			}
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// socketName is the socket of "unix:path=/run/x" or "unix:abstract=x".
func socketName(address string) (string, error) {
	rest, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return "", fmt.Errorf("bus address %q: not a unix socket", address)
	}
	for pair := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		if err != nil {
			return "", fmt.Errorf("bus address %q: %w", address, err)
		}
		switch key {
		case "path":
			return value, nil
		case "abstract":
			return "@" + value, nil
		}
	}
	return "", fmt.Errorf("bus address %q: neither path nor abstract", address)
}
