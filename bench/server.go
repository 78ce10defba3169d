package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// server is a running program that is measured.
type server struct {
	name   string
	caches bool // it fetches from the upstream; else it has everything already
	host   string
	cert   *certificate // nil: without TLS
	dir    string
	cmd    *exec.Cmd
	ended  chan struct{}

	cold *coldResult
	warm map[string][]warmResult // by what was asked
}

// serverKind is a program that is measured, and how it is started.
type serverKind struct {
	name, program string
	caches        bool
	arguments     func(s *server) ([]string, error)
}

const distributionName = "distribution, pull-through"

// kindsOf are those that are installed.
func kindsOf(p programs, up *upstream) ([]serverKind, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	kinds := []serverKind{
		{"entrepot", p.entrepot, true, func(s *server) ([]string, error) { return entrepotArguments(s, up) }},
		{distributionName, p.registry, true, func(s *server) ([]string, error) { return distributionArguments(s, up) }},
		{"nginx, proxy_cache", p.nginx, true, func(s *server) ([]string, error) { return nginxArguments(s, up) }},
		{"files, net/http alone", self, false, func(s *server) ([]string, error) { return bareArguments(s, up) }},
	}
	return slices.DeleteFunc(kinds, func(k serverKind) bool { return k.program == "" }), nil
}

// startServers starts servers. Those that it has started it returns even where it
// fails.
func startServers(ctx context.Context, kinds []serverKind, work string, cert *certificate) (servers []*server, err error) {
	for i, kind := range kinds {
		s := &server{name: kind.name, caches: kind.caches, cert: cert, warm: map[string][]warmResult{}}
		s.dir = filepath.Join(work, strconv.Itoa(i))
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			return servers, err
		}
		if s.host, err = freeAddress(); err != nil {
			return servers, err
		}
		arguments, err := kind.arguments(s)
		if err != nil {
			return servers, err
		}
		if err := s.start(kind.program, arguments); err != nil {
			return servers, err
		}
		servers = append(servers, s)
		if err := s.waitReady(ctx); err != nil {
			return servers, err
		}
	}
	return servers, nil
}

func (s *server) url() string {
	if s.cert != nil {
		return "https://" + s.host
	}
	return "http://" + s.host
}

func (s *server) logFile() string { return filepath.Join(s.dir, "log") }

func (s *server) start(program string, arguments []string) error {
	log, err := os.Create(s.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(program, arguments...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	// Its own group, so that its workers are counted with it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.ended = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // How it ended is in its log.
		close(s.ended)
	}()
	return nil
}

func (s *server) stop() {
	// One that has ended already cannot be signalled, which is as good.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
	}
}

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client := &http.Client{Transport: s.transport(1, false)}
	defer client.CloseIdleConnections()
	for {
		resp, err := client.Get(s.url() + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("/v2/: %s", resp.Status)
		}
		select {
		case <-s.ended:
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
			continue
		}
		log, _ := os.ReadFile(s.logFile())
		return fmt.Errorf("%s is not ready: %w\n%s", s.name, err, log)
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
