package pull_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// readPart reads a range as a client does.
func readPart(t *testing.T, m mirrortest.Mirror, repo pull.Repository, d pull.Digest, part pull.Span) ([]byte, error) {
	t.Helper()
	b, err := m.Blob(t.Context(), repo, d, pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{part} }})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	var got bytes.Buffer
	_, err = b.WriteRange(t.Context(), &got, part.From, part.Len())
	return got.Bytes(), err
}

// Pieces of a draft are nobody's proof: who may read them is asked as for
// content that is cached, and another upstream's are not read at all.
func TestPiecesAreReadByWhoMayReadTheBlob(t *testing.T) {
	const size = 8 << 20
	content := mirrortest.Bytes(1, size)
	part := pull.Span{From: 5 << 20, To: 5<<20 + 1000}
	private, elsewhere := pull.Repository{Upstream: "hub", Name: "private"}, pull.Repository{Upstream: "quay", Name: "app"}
	for name, kept := range map[string]bool{"while they are being read": false, "when they are kept": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, quay := mirrortest.NewOrigin(), mirrortest.NewOrigin()
				layer := o.Put("app", "layer", content)
				quay.Put("app", "layer", content)
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Upstreams = append(opts.Upstreams, pull.Upstream{Name: "quay", Endpoints: []upstream.Endpoint{quay}})
				})
				d := mirrortest.Short(layer.Digest.String())
				want := func(repo pull.Repository, asked, askedElsewhere []string) {
					t.Helper()
					got, err := readPart(t, m, repo, layer.Digest, part)
					if err != nil || !bytes.Equal(got, content[part.From:part.To]) {
						t.Errorf("%s got %d bytes: %v", repo, len(got), err)
					}
					mirrortest.WantTranscript(t, o, asked...)
					mirrortest.WantTranscript(t, quay, askedElsewhere...)
				}
				wait := func() {
					if kept {
						time.Sleep(time.Minute)
					}
				}
				get := "GET blob app " + d + " 5242880+1000"
				want(mirrortest.App, []string{get}, nil)
				wait()
				// Nobody has asked whether this repository has it, and now nobody can.
				o.Fail("HEAD blob private "+d, upstream.ErrRefused)
				if got, err := readPart(t, m, private, layer.Digest, part); !errors.Is(err, upstream.ErrUnavailable) || len(got) > 0 {
					t.Errorf("a repository that nobody has asked for got %d bytes and %v", len(got), err)
				}
				o.ClearFailures()
				o.Fail("HEAD blob private "+d, upstream.ErrNotFound)
				if got, err := readPart(t, m, private, layer.Digest, part); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
					t.Errorf("a repository without it got %d bytes and %v", len(got), err)
				}
				o.ClearFailures()
				o.Transcript()
				// One that has it reads the pieces.
				o.Put("second", "layer", content)
				want(pull.Repository{Upstream: "hub", Name: "second"}, []string{"HEAD blob second " + d}, nil)
				wait()
				want(mirrortest.App, nil, nil)
				wait()
				// Those of another upstream are its own.
				want(elsewhere, nil, []string{"HEAD blob app " + d, get})
				mirrortest.Wait()
			})
		})
	}
}

func TestOfflinePiecesAreServedAndTheRestIsNot(t *testing.T) {
	const size = 8 << 20
	content := mirrortest.Bytes(1, size)
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", content)
		m := mirrortest.New(t, o, nil)
		part, other := pull.Span{From: 0, To: 1000}, pull.Span{From: 2000, To: 3000}
		if _, err := readPart(t, m, mirrortest.App, layer.Digest, part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		m.SetOffline(true)
		o.Transcript()
		if got, err := readPart(t, m, mirrortest.App, layer.Digest, part); err != nil || !bytes.Equal(got, content[:1000]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if desc, _, err := m.ResolveBlob(t.Context(), mirrortest.App, layer.Digest); err != nil || desc.Size != size {
			t.Errorf("its size is %d: %v", desc.Size, err)
		}
		if got, err := readPart(t, m, mirrortest.App, layer.Digest, other); !errors.Is(err, pull.ErrOffline) || len(got) > 0 {
			t.Errorf("what is not there: %d bytes, %v", len(got), err)
		}
		if _, err := m.Fetch(mirrortest.App, layer.Digest); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("the whole: %v", err)
		}
		if asked := slices.Clone(o.Transcript()); len(asked) > 0 {
			t.Errorf("the upstream was asked %q", asked)
		}
	})
}

// What another upstream sends may be anything before all of it is verified, and
// may take for ever. Whoever wants the blob, or all the rest of it, from an
// upstream of their own has it from there.
func TestNobodyHasOrWaitsForWhatAnotherUpstreamSends(t *testing.T) {
	const size, from = 8 << 20, 6 << 20
	content, wrong := mirrortest.Bytes(1, size), mirrortest.Bytes(2, size)
	own := pull.Repository{Upstream: "quay", Name: "app"}
	for name, begin := range map[string]int64{"the whole": 0, "all the rest": from} {
		for how, body := range map[string]func(ends <-chan struct{}) io.Reader{
			"it sends other bytes": func(<-chan struct{}) io.Reader { return bytes.NewReader(wrong) },
			"it stops in the middle": func(ends <-chan struct{}) io.Reader {
				return io.MultiReader(bytes.NewReader(wrong[:1<<20]), untilTold(ends))
			},
			"it has not begun to": func(ends <-chan struct{}) io.Reader { return untilTold(ends) },
			"it is right so far, later": func(ends <-chan struct{}) io.Reader {
				return io.MultiReader(bytes.NewReader(content[:1<<20]), untilTold(ends))
			},
		} {
			t.Run(name+": "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o, quay := mirrortest.NewOrigin(), mirrortest.NewOrigin()
					layer := o.Put("app", "layer", content)
					quay.Put("app", "layer", content)
					ends := make(chan struct{})
					o.Bodies = func(string, pull.Digest, int64, []byte) io.ReadCloser { return io.NopCloser(body(ends)) }
					m := mirrortest.New(t, o, func(opts *mirror.Options) {
						opts.Upstreams = append(opts.Upstreams, pull.Upstream{Name: "quay", Endpoints: []upstream.Endpoint{quay}})
					})
					others := make(chan error, 1)
					go func() { others <- m.Read(t.Context(), mirrortest.App, layer.Digest) }()
					mirrortest.Wait()
					want := pull.Want{}
					if begin > 0 {
						want = pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{{From: begin, To: size}} }, ToEnd: true}
					}
					var got [3]bytes.Buffer
					var reads sync.WaitGroup
					began := time.Now()
					for i := range got {
						reads.Go(func() {
							b, err := m.Blob(t.Context(), own, layer.Digest, want)
							if err != nil {
								t.Error(err)
								return
							}
							defer b.Close()
							if _, err := b.WriteRange(t.Context(), &got[i], begin, -1); err != nil {
								t.Error(err)
							}
						})
					}
					reads.Wait()
					for i := range got {
						if !bytes.Equal(got[i].Bytes(), content[begin:]) {
							t.Errorf("%d bytes, which are not those of the blob", got[i].Len())
						}
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("after %s", took)
					}
					asked := quay.Transcript()
					if whole := slices.DeleteFunc(asked, func(a string) bool { return !strings.HasPrefix(a, "GET blob") }); begin == 0 && len(whole) != 1 {
						t.Errorf("three clients of the upstream led to %q", asked)
					}
					close(ends)
					<-others
				})
			})
		}
	}
}

// Nor does anybody who reads parts of it wait, for the size, for the bytes, or for
// an answer at all.
func TestWhoReadsInPartsWaitsForNoOtherUpstream(t *testing.T) {
	const size = 8 << 20
	content := mirrortest.Bytes(1, size)
	own := pull.Repository{Upstream: "quay", Name: "app"}
	for name, parts := range map[string][]pull.Span{
		"a part":                     {{From: 5 << 20, To: 6 << 20}},
		"the first bytes":            {{To: 1000}},
		"some parts":                 {{From: 10, To: 20}, {From: 4 << 20, To: 5 << 20}},
		"all the rest":               {{From: 6 << 20, To: size}},
		"all of it in several parts": {{To: 3 << 20}, {From: 3 << 20, To: 5 << 20}, {From: 5 << 20, To: size}},
	} {
		for how, answers := range map[string]bool{"it drips": true, "it does not answer": false} {
			t.Run(name+": "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o, quay := mirrortest.NewOrigin(), mirrortest.NewOrigin()
					layer := o.Put("app", "layer", content)
					quay.Put("app", "layer", content)
					ends := make(chan struct{})
					o.Bodies = func(string, pull.Digest, int64, []byte) io.ReadCloser {
						return io.NopCloser(io.MultiReader(bytes.NewReader(content[:10]), untilTold(ends)))
					}
					release := func() {}
					if !answers {
						release = o.Hold("GET blob app " + mirrortest.Short(layer.Digest.String()))
					}
					m := mirrortest.New(t, o, func(opts *mirror.Options) {
						opts.Upstreams = append(opts.Upstreams, pull.Upstream{Name: "quay", Endpoints: []upstream.Endpoint{quay}})
					})
					others := make(chan error, 1)
					go func() { others <- m.Read(t.Context(), mirrortest.App, layer.Digest) }()
					mirrortest.Wait()
					began := time.Now()
					b, err := m.Blob(t.Context(), own, layer.Digest, pull.Want{Parts: func(int64) []pull.Span { return parts }})
					if err != nil {
						t.Fatal(err)
					}
					if b.Size() != size {
						t.Errorf("it has %d bytes", b.Size())
					}
					for _, part := range parts {
						var got bytes.Buffer
						n := part.Len()
						if part.To == size && len(parts) == 1 {
							n = -1
						}
						if _, err := b.WriteRange(t.Context(), &got, part.From, n); err != nil || !bytes.Equal(got.Bytes(), content[part.From:part.To]) {
							t.Errorf("%v: %d bytes, %v", part, got.Len(), err)
						}
					}
					if took := time.Since(began); took > 0 {
						t.Errorf("after %s", took)
					}
					b.Close()
					release()
					close(ends)
					<-others
				})
			})
		}
	}
}

// untilTold has no bytes before it is told to end.
type untilTold <-chan struct{}

func (w untilTold) Read([]byte) (int, error) {
	<-w
	return 0, upstream.ErrInvalidResponse
}

// The download of another repository goes on, and its upstream refuses a piece to
// that repository: the client gets it through its own.
func TestAPieceThatIsRefusedToAnotherRepositoryIsFetchedThroughOnesOwn(t *testing.T) {
	const size = 8 << 20
	content := mirrortest.Bytes(1, size)
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", content)
		o.Put("second", "layer", content)
		m := mirrortest.New(t, o, nil)
		second := pull.Repository{Upstream: "hub", Name: "second"}
		part, other := pull.Span{From: 0, To: 1000}, pull.Span{From: 5 << 20, To: 5<<20 + 1000}
		if _, err := readPart(t, m, mirrortest.App, layer.Digest, part); err != nil {
			t.Fatal(err)
		}
		d := mirrortest.Short(layer.Digest.String())
		refused := "GET blob app " + d + " 5242880+1000"
		o.Fail(refused, slices.Repeat([]error{upstream.ErrDenied}, 20)...)
		o.Transcript()
		if got, err := readPart(t, m, second, layer.Digest, other); err != nil || !bytes.Equal(got, content[other.From:other.To]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, err := readPart(t, m, mirrortest.App, layer.Digest, other); !errors.Is(err, upstream.ErrDenied) {
			t.Errorf("the repository that is refused it gets %v", err)
		}
		mirrortest.Wait()
		mirrortest.WantTranscript(t, o, "HEAD blob second "+d, refused, "GET blob second "+d+" 5242880+1000", refused)
	})
}
