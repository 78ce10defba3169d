package main

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	warmRounds   = 3
	warmClients  = 8
	warmRequests = 16000 // of each small kind, in a round
	warmBlobs    = 8     // of 256 MiB, in a round
)

// warmResult is what one request for something cached costs.
type warmResult struct {
	cpu      time.Duration // of the server
	upstream int64         // requests that went on to the upstream, of all in the round
}

// question is something that is asked over and over.
type question struct {
	name    string
	method  string
	path    string
	want    content
	clients int
	times   int64
	http2   bool
}

func questions(up *upstream) []question {
	return []question{
		{manifestByDigest, http.MethodGet, manifestPath(up.manifest.digest), up.manifest, warmClients, warmRequests, false},
		{tagHead, http.MethodHead, manifestPath(tag), up.manifest, warmClients, warmRequests, false},
		{smallBlob, http.MethodGet, blobPath(up.small.digest), up.small, warmClients, warmRequests, false},
		{bigBlob, http.MethodGet, blobPath(up.blob.digest), up.blob, 1, warmBlobs, false},
	}
}

const (
	manifestByDigest = "manifest by digest"
	tagHead          = "HEAD of a tag"
	smallBlob        = "2 KiB blob"
	bigBlob          = "256 MiB blob"
)

func measureWarm(ctx context.Context, s *server, up *upstream) error {
	for _, q := range questions(up) {
		result, err := ask(ctx, s, up, q)
		if err != nil {
			return err
		}
		s.warm[q.name] = append(s.warm[q.name], result)
	}
	return nil
}

// ask asks once to make sure that the answer is cached, and then as often as
// the question says.
func ask(ctx context.Context, s *server, up *upstream, q question) (warmResult, error) {
	client := &http.Client{Transport: s.transport(q.clients, q.http2)}
	defer client.CloseIdleConnections()
	if _, err := get(ctx, client, q.method, s.url(), q.path, q.want); err != nil {
		return warmResult{}, err
	}
	before, err := s.cpu()
	if err != nil {
		return warmResult{}, err
	}
	requests := up.requests.Load()
	var asked atomic.Int64
	var clients sync.WaitGroup
	failures := make([]error, q.clients)
	for i := range q.clients {
		clients.Go(func() {
			for asked.Add(1) <= q.times && failures[i] == nil {
				_, failures[i] = get(ctx, client, q.method, s.url(), q.path, q.want)
			}
		})
	}
	clients.Wait()
	for _, err := range failures {
		if err != nil {
			return warmResult{}, err
		}
	}
	after, err := s.cpu()
	if err != nil {
		return warmResult{}, err
	}
	return warmResult{cpu: (after - before) / time.Duration(q.times), upstream: up.requests.Load() - requests}, nil
}
