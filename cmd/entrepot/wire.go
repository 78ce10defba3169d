package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

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
	"github.com/entrepot/entrepot/upstream"
)

// shutdownTimeout is how long clients have to finish after the program is told
// to stop.
const shutdownTimeout = 25 * time.Second

// errDiskDown is no reason not to be ready: without its disk, this mirror still
// serves better than none.
var errDiskDown = errors.New("the disk is down; what is in memory is served, and the rest passes through")

// run assembles the program and runs it until ctx ends. lost is how many lines of
// the log were dropped.
func run(ctx context.Context, cfg config.Config, stdout io.Writer, log *slog.Logger, lost func() int64) (err error) {
	metrics, err := admin.NewMetrics()
	if err != nil {
		return err
	}
	if err := metrics.LostLines(lost); err != nil {
		return err
	}
	panics.Handle(func(task string, value any, stack []byte) {
		metrics.Panicked()
		log.Error("a task has panicked; please report this", "task", task, "panic", value, "stack", string(stack))
	})
	operators, err := listenAdmin(ctx, cfg.Admin)
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
	room := upstream.NewRoom(cfg.Cache.Memory.Bytes)
	upstreams, err := registries(cfg, logins, metrics, files.Records(), room, log)
	if err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	m := mirror.New(mirror.Options{
		Blobs: files.Blobs(), Records: files.Records(), Memory: content, Upstreams: upstreams,
		Rules: pull.Rules{
			TagTTL: cfg.Freshness.TagTTL, ReferrersTTL: cfg.Freshness.ReferrersTTL,
			NegativeTTL: cfg.Freshness.NegativeTTL, MaxWait: cfg.Freshness.MaxWait, Offline: cfg.Offline, Room: room,
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

// registries returns the configured upstreams. Each one's endpoints are tried
// in order, and each endpoint has its own circuit breaker.
func registries(cfg config.Config, logins *logins, metrics *admin.Metrics, records cache.Records, room *upstream.Room, log *slog.Logger) ([]pull.Upstream, error) {
	var all []pull.Upstream
	for _, u := range cfg.Upstreams {
		metrics.Declare(u.Name)
		if cfg.Offline || u.Offline {
			all = append(all, offlineUpstream(u)) // nothing is made that could open a connection
			continue
		}
		quota := &upstream.Quota{}
		var endpoints, each []upstream.Endpoint
		slots := upstream.NewSlots(u.MaxRequests)
		for _, endpoint := range u.Endpoints {
			remote, err := newRemote(u, endpoint, logins, quota, metrics, records, room)
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

// offlineUpstream is an upstream that is never asked.
func offlineUpstream(u config.Upstream) pull.Upstream {
	return pull.Upstream{
		Name: u.Name, Offline: true, Allows: u.Allows, Credentialed: u.Credentials != (config.Credentials{}),
		Immutable: u.Immutable, ServeDeleted: u.Deleted == config.DeletedServe,
		CosignTags: u.Referrers.CosignTags, BuildKitAttestations: u.Referrers.BuildKitAttestations,
	}
}

func newRemote(u config.Upstream, endpoint string, logins *logins, quota *upstream.Quota, metrics *admin.Metrics, records cache.Records, room *upstream.Room) (*upstream.Remote, error) {
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
		Name: u.Name, Room: room,
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
