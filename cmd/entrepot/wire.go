package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/admission"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/upstream"
)

// shutdownTimeout is how long clients have to finish after the program is told
// to stop.
const shutdownTimeout = 25 * time.Second

// handOver is how long a start waits for another entrepot to leave the cache
// folder: as long as that may take to stop, and a little for its disk.
const handOver = shutdownTimeout + 5*time.Second

// errDiskDown is no reason not to be ready: without its disk, this mirror still
// serves better than none.
var errDiskDown = errors.New("the disk is down; what is in memory is served, and the rest passes through")

// run assembles the program and runs it until ctx ends.
func run(ctx context.Context, cfg config.Config, stdout io.Writer, log *slog.Logger) (err error) {
	metrics, err := admin.NewMetrics()
	if err != nil {
		return err
	}
	panics.Handle(func(task string, value any, stack []byte) {
		metrics.Panicked()
		log.Error("a task has panicked; please report this", "task", task, "panic", value, "stack", string(stack))
	})
	operators, err := listen(ctx, cfg.Admin, "admin")
	if err != nil {
		return err
	}
	defer operators.Close()
	// It answers before the cache is open: that may take a while, and a probe of
	// whether this process lives must not end it meanwhile.
	starting := admin.NewStarting(metrics, adminHosts(cfg))
	back := proxy.HTTPServer(starting, log)
	back.MaxHeaderBytes = 32 << 10 // its connections are not bounded, and none of them asks for many ranges
	defer back.Close()
	failed := make(chan error, 2)
	go func() { failed <- serveListener(back, operators) }()

	machine := readMachine(cfg.Cache.Dir, log)
	warnOfMemory(cfg.Cache, machine, log)
	if err := metrics.Limits(machine.metrics()); err != nil {
		return err
	}
	var m *mirror.Mirror
	var closeMirror func(grace context.Context) error
	if err := whenUnlocked(ctx, log, handOver, func() (err error) {
		m, closeMirror, err = openMirror(ctx, cfg, machine, metrics, log)
		return err
	}); err != nil {
		return err
	}
	grace, endGrace := context.WithCancel(context.WithoutCancel(ctx)) // it begins when ctx has ended
	defer endGrace()
	context.AfterFunc(ctx, func() { time.AfterFunc(shutdownTimeout, endGrace) })
	defer func() { err = errors.Join(err, closeMirror(grace)) }()
	// The clients' port opens only when requests can be answered. If a mirror
	// refuses connections, a runtime goes on to the next host at once; if the
	// mirror accepted them too early, the runtime would wait.
	clients, err := listen(ctx, cfg.Listen, "listen")
	if err != nil {
		return err
	}
	defer clients.Close()
	m.StartPrefetching()

	places := proxy.NewPlaces(proxy.PlacesOptions{
		Places: machine.clientPlaces(), LargeHeaders: machine.largeHeaders(), Logger: log, Refused: metrics.Refused,
	})
	if err := metrics.Places(places.Taken); err != nil {
		return err
	}
	defer inBackground(ctx, places.Watch)()
	face := proxy.HTTPServer(proxy.New(proxy.Options{
		Puller: m.Puller, Upstreams: clientUpstreams(cfg), Logger: log, Observer: metrics, Places: places, ClientIdle: cfg.ClientIdle,
		Hosts: clientHosts(cfg, clients.Addr()), Networks: cfg.Networks(),
	}), log)
	face.IdleTimeout = cfg.ClientKeepAlive
	var stopping atomic.Bool
	starting.Started(admin.New(admin.Options{
		Metrics: metrics, Cache: m.Cache(), Config: newConfigResponse(cfg, clients.Addr().String()), Hosts: adminHosts(cfg),
		Operators: admission.Operators{TokenFile: cfg.AdminTokenFile},
		Ready: func() error {
			if stopping.Load() {
				return errors.New("stopping")
			}
			return places.Full()
		},
		Degraded: func() error {
			if m.Store.Outage() != nil {
				return errDiskDown
			}
			return nil
		},
	}))
	if cfg.TLS.CertFile != "" {
		if face.TLSConfig, err = proxy.TLS(cfg.TLS.CertFile, cfg.TLS.KeyFile, log); err != nil {
			return err
		}
	}
	go func() { failed <- serveListener(face, proxy.LimitConnections(face, clients, places)) }()
	if exposure := cfg.Exposure(clients.Addr().String()); exposure != "" {
		log.Warn(exposure)
	}
	if err := announce(stdout, cfg, clients.Addr(), operators.Addr()); err != nil {
		return fmt.Errorf("announce: %w", err)
	}

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stopping.Store(true)
	log.Info("stopping")
	if stopErr := face.Shutdown(grace); stopErr != nil {
		log.Warn("clients were disconnected", "error", stopErr)
		face.Close()
	}
	back.Close()
	return err
}

// whenUnlocked opens a cache folder. If another process has it open, that may be
// about to stop, as at an update: it tries again until the time is over.
func whenUnlocked(ctx context.Context, log *slog.Logger, patience time.Duration, open func() error) error {
	over := time.NewTimer(patience)
	defer over.Stop()
	err := open()
	if errors.Is(err, cache.ErrLocked) {
		log.Warn("waiting for another entrepot to stop", "for", patience, "reason", err)
	}
	for errors.Is(err, cache.ErrLocked) {
		select {
		case <-time.After(100 * time.Millisecond):
			err = open()
		case <-over.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
	return err
}

// inBackground runs a function in a goroutine. Its context ends with ctx, or
// when end is called. end waits until the function has returned.
func inBackground(ctx context.Context, do func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { do(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// openMirror opens the cache folder and puts the mirror together on it. It
// returns cache.ErrLocked if another process has the folder open.
func openMirror(ctx context.Context, cfg config.Config, machine machine, metrics *admin.Metrics, log *slog.Logger) (_ *mirror.Mirror, closeMirror func(grace context.Context) error, err error) {
	bounds, err := spaceLimits(cfg, log)
	if err != nil {
		return nil, nil, err
	}
	content, err := memory.NewContent(contentShare(cfg.Cache.Memory.Bytes))
	if err != nil {
		return nil, nil, err
	}
	// Before the records are opened, which may have to be restored.
	endPolicy := inBackground(ctx, newMemoryPolicy(content, cfg.Cache.Memory.Bytes, machine, log).run)
	defer func() {
		if err != nil {
			endPolicy()
			content.Close()
		}
	}()
	files, err := disk.Open(cfg.Cache.Dir, disk.Options{
		Log: log, MinFree: bounds.MinFree, Journal: metadata.Durable(),
		VerifyEvery: cfg.Cache.VerifyEvery, OnDamage: metrics.Damaged,
		Places: disk.PlacesFor(machine.PIDs, machine.CPUs),
	})
	if err != nil {
		return nil, nil, err
	}
	bounds.Folder = files
	isDown := func() bool { return files.Outage() != nil }
	if err := errors.Join(metrics.RecordsBehind(files.Behind), metrics.DiskDown(isDown)); err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	logins := newLogins(cfg, log)
	upstreams, err := registries(cfg, logins, metrics, files.Records(), log)
	if err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	m := mirror.New(mirror.Options{
		Blobs: files.Blobs(), Records: files.Records(), Memory: content, Upstreams: upstreams,
		Rules: pull.Rules{
			TagTTL: cfg.Freshness.TagTTL, ReferrersTTL: cfg.Freshness.ReferrersTTL,
			NegativeTTL: cfg.Freshness.NegativeTTL, MaxWait: cfg.Freshness.MaxWait, Offline: cfg.Offline,
		},
		Bounds:    bounds,
		Pins:      mirror.Pins{Matches: pinned(cfg), Images: exactPins(cfg)},
		ScrubRate: cfg.Cache.ScrubRate.Bytes, MaxFlights: machine.maxFlights(), Logger: log,
		Events: mirror.Events{
			Flights: metrics.Flights, Received: metrics.Received, Bypassed: metrics.Bypassed, Evicted: metrics.Evicted, Usage: metrics.Kept,
		},
	})
	if err := errors.Join(metrics.DraftBytes(m.Store.KeptBytes), metrics.BesideBytes(files.RecordBytes, files.AsideBytes), metrics.MemoryBytes(content.Bytes)); err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	if err := metrics.Full(func() map[string]int64 { return timesMet(m.Store) }); err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	if files.Rebuilt() {
		manifests, err := m.Ledger.RebuildMembers(ctx)
		log.Warn("records were rebuilt", "manifests", manifests, "error", err)
	}
	m.Start()
	return m, func(grace context.Context) error {
		m.Close()
		logins.close()
		endPolicy()
		content.Close()
		return files.Shutdown(grace)
	}, nil
}

// timesMet is how often each bound on what is stored was met. All of them are
// there from the start, so that alerts see the first time.
func timesMet(s *store.Store) map[string]int64 {
	met, times := s.TimesMet(), map[string]int64{}
	for bound := range boundNames {
		times[string(bound)] = met[bound]
	}
	return times
}

// spaceLimits resolves the configured limits, which may be percentages of the
// file system. The cache folder need not exist yet.
func spaceLimits(cfg config.Config, log *slog.Logger) (store.Bounds, error) {
	of, err := disk.Space(nearestExisting(cfg.Cache.Dir))
	if err != nil {
		return store.Bounds{}, err
	}
	if of.Bytes == 0 && cfg.Cache.MaxSize.Percent > 0 {
		log.Warn("the file system of the cache does not say how large it is, so that max_size has no meaning: give it in bytes", "max_size", cfg.Cache.MaxSize.String())
	}
	return store.Bounds{
		MaxBytes: cfg.Cache.MaxSize.Of(of.Bytes),
		MinFree:  cfg.Cache.MinFree.Of(of.Bytes),
		Space:    func() (cache.Space, error) { return disk.Space(cfg.Cache.Dir) },
	}, nil
}

// nearestExisting returns the folder, or its nearest parent that exists.
func nearestExisting(folder string) string {
	for {
		parent := filepath.Dir(folder)
		if _, err := os.Stat(folder); err == nil || parent == folder {
			return folder
		}
		folder = parent
	}
}

// serveListener serves on l until the server is shut down.
func serveListener(s *http.Server, l net.Listener) error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(l, "", "")
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", l.Addr(), err)
}

func clientUpstreams(cfg config.Config) []proxy.Upstream {
	var all []proxy.Upstream
	for _, u := range cfg.Upstreams {
		all = append(all, proxy.Upstream{Name: u.Name, Aliases: u.Aliases, Hosts: u.Hosts, Default: u.Default})
	}
	return all
}

// registries returns the configured upstreams. Each one's endpoints are tried
// in order, and each endpoint has its own circuit breaker.
func registries(cfg config.Config, logins *logins, metrics *admin.Metrics, records cache.Records, log *slog.Logger) ([]pull.Upstream, error) {
	var all []pull.Upstream
	for _, u := range cfg.Upstreams {
		metrics.Declare(u.Name)
		quota := &upstream.Quota{}
		var endpoints, each []upstream.Endpoint
		slots := upstream.NewSlots(u.MaxRequests)
		for _, endpoint := range u.Endpoints {
			remote, err := newRemote(u, endpoint, logins, quota, metrics, records)
			if err != nil {
				return nil, err
			}
			e := upstream.Breaker(upstream.Retry(remote))
			endpoints, each = append(endpoints, e), append(each, slots.LimitEndpoint(e))
		}
		all = append(all, pull.Upstream{
			Name:                 u.Name,
			Registry:             upstream.SecondConnection(slots.Limit(upstream.Fallback(endpoints...))),
			Endpoints:            each,
			Allows:               u.Allows,
			Credentialed:         u.Credentials != (config.Credentials{}),
			Immutable:            u.Immutable,
			ServeDeleted:         u.Deleted == config.DeletedServe,
			Quota:                quota.Share,
			Connections:          u.ConnectionsPerBlob,
			CosignTags:           u.Referrers.CosignTags,
			BuildKitAttestations: u.Referrers.BuildKitAttestations,
		})
	}
	return all, nil
}

func newRemote(u config.Upstream, endpoint string, logins *logins, quota *upstream.Quota, metrics *admin.Metrics, records cache.Records) (*upstream.Remote, error) {
	base, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint of %s: %w", u.Name, err)
	}
	location, err := config.PlaceOf(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint of %s: %w", u.Name, err)
	}
	roots, err := rootCAs(u.TLS.CAFile)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	hasReferrers, sawReferrers := metadata.RememberReferrersAPI(records, u.Name, endpoint)
	return upstream.NewRemote(upstream.RemoteOptions{
		HasReferrers: hasReferrers, SawReferrers: sawReferrers,
		Name: u.Name,
		// A host that is not the registry's own is a mirror, perhaps of many
		// registries. It gets the registry's name in ns, as containerd sends
		// it. If the endpoint has a path, the path names the registry.
		SendNamespace:         location.Prefix == "" && !sameSite(base.Hostname(), u.Name),
		Endpoint:              endpoint,
		Credentials:           logins.keychain(u, base, location.Prefix),
		RootCAs:               roots,
		InsecureSkipVerify:    u.TLS.InsecureSkipVerify,
		TrustedRealms:         u.TrustedRealms,
		AllowPrivateRedirects: u.AllowPrivateRedirects,
		UserAgent:             "entrepot/" + buildVersion(),
		Waits:                 upstream.Timeouts{Connect: u.Timeouts.Connect, TLS: u.Timeouts.Connect, Header: u.Timeouts.Header, Idle: u.Timeouts.Idle},
		Observe: func(o upstream.Observation) {
			metrics.Upstream(u.Name, o.Kind, o.Method, o.Status)
			quota.Observe(o.Limit, o.Remaining, o.Window)
		},
	})
}

func sameSite(host, upstreamName string) bool {
	own, _, err := net.SplitHostPort(upstreamName)
	if err != nil {
		own = upstreamName
	}
	if host == own {
		return true
	}
	a, errA := publicsuffix.EffectiveTLDPlusOne(host)
	b, errB := publicsuffix.EffectiveTLDPlusOne(own)
	return errA == nil && errB == nil && a == b
}

func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // nil means the system's
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls.ca_file: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.ca_file %s holds no certificate", file)
	}
	return pool, nil
}
