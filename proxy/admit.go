package proxy

import (
	"fmt"
	"net/http"
)

var errNetwork = refuse(http.StatusForbidden, codeDenied, "this mirror does not answer clients of your network: client_networks has those that it answers")

// admit returns nil if a client is answered at all, on whatever route, or why
// not.
func (s *Server) admit(r *http.Request) error {
	switch {
	case !s.networks.Allow(r):
		return errNetwork
	case s.hosts != nil && !s.hosts.Allow(r):
		return refuse(http.StatusMisdirectedRequest, codeDenied,
			fmt.Sprintf("this mirror listens on loopback and does not answer as %.260q: use localhost or its IP address, or add the name to client_hosts", r.Host))
	}
	return nil
}
