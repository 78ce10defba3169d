package upstreamtest

import (
	"bytes"
	"fmt"
	"net/http"
)

// Wire says how an answer is written onto the connection by hand.
type Wire struct {
	Version string                     // HTTP/1.1 where it is empty
	Name    func(header string) string // writes a header's name
	Twice   []string                   // headers that are sent twice
	After   string                     // sent behind the body
	Bare    bool                       // neither length nor chunks: the end of the connection ends the body
}

// Written sends an answer by hand, and closes the connection.
func Written(how Wire) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		a := r.taken(req, q)
		var b bytes.Buffer
		version := how.Version
		if version == "" {
			version = "HTTP/1.1"
		}
		fmt.Fprintf(&b, "%s %d %s\r\n", version, a.Status, http.StatusText(a.Status))
		if how.Bare && req.Method != http.MethodHead {
			a.Header.Del("Content-Length")
		}
		a.Header.Set("Connection", "close")
		for name, values := range a.Header {
			written := name
			if how.Name != nil {
				written = how.Name(name)
			}
			for _, value := range values {
				fmt.Fprintf(&b, "%s: %s\r\n", written, value)
			}
			for _, twice := range how.Twice {
				if twice == name && len(values) > 0 {
					fmt.Fprintf(&b, "%s: %s\r\n", written, values[0])
				}
			}
		}
		b.WriteString("\r\n")
		if req.Method != http.MethodHead {
			b.Write(a.Body)
			b.WriteString(how.After)
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return // The client has left.
		}
		_, _ = conn.Write(b.Bytes())
		_ = conn.Close()
	}
}
