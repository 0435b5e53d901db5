package openapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// Fetch asks at a Unix socket and holds the answer against the document. target
// is the path with its query as sent, path the document's.
func (d *Document) Fetch(ctx context.Context, socket, method, path, target string) (status int, body []byte, err error) {
	var dialer net.Dialer
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://slicelb"+target, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, target, err)
	}
	return resp.StatusCode, body, d.Check(method, path, resp.StatusCode, resp.Header.Get("Content-Type"), body)
}
