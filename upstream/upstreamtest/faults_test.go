package upstreamtest

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func ask(t *testing.T, method, address string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestFaultsAnswerThroughThoseAfterThem(t *testing.T) {
	fake := New(t)
	d := fake.AddBlob("app", []byte("content"))
	fake.Throughout(WithHeader("X-Everywhere", "yes"))
	fake.Always("blobs", Combine(Typed("text/html"), Rewritten(func(b []byte) []byte { return append(b, '!') }), WithoutHeader("Docker-Content-Digest")))
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		resp, body := ask(t, method, fake.URL()+"/v2/app/blobs/"+d.Digest.String())
		if resp.Header.Get("Content-Type") != "text/html" || resp.Header.Get("Docker-Content-Digest") != "" || resp.Header.Get("X-Everywhere") != "yes" {
			t.Errorf("%s: headers are %v", method, resp.Header)
		}
		if resp.ContentLength != int64(len("content!")) || method == http.MethodGet && body != "content!" {
			t.Errorf("%s: %q of %d bytes", method, body, resp.ContentLength)
		}
	}
}

func TestTheFirstQuestionAboutEachThingMeetsAFault(t *testing.T) {
	fake := New(t)
	one, two := fake.AddBlob("app", []byte("one")), fake.AddBlob("app", []byte("two"))
	fake.Always("blobs", FirstTime(Page(http.StatusNotFound)))
	for _, d := range []string{one.Digest.String(), two.Digest.String()} {
		for _, want := range []int{http.StatusNotFound, http.StatusOK, http.StatusOK} {
			if resp, _ := ask(t, http.MethodGet, fake.URL()+"/v2/app/blobs/"+d); resp.StatusCode != want {
				t.Errorf("%s: %d instead of %d", Short(d), resp.StatusCode, want)
			}
		}
	}
}

func TestAStorageAnswersOnlyWhatItsURLsAreGoodFor(t *testing.T) {
	fake := New(t)
	d := fake.AddBlob("app", []byte("content"))
	fake.Always("blobs", ToStorage(Storage{Uses: 1, Query: "x=%2B"}))
	at := fake.URL() + "/v2/app/blobs/" + d.Digest.String()
	resp, body := ask(t, http.MethodGet, at)
	if body != "content" || resp.Header.Get("Docker-Content-Digest") != "" || !strings.Contains(resp.Request.URL.RawQuery, "x=%2B") {
		t.Errorf("%q from %s, %v", body, resp.Request.URL, resp.Header)
	}
	for what, again := range map[string]string{"a URL that was used": resp.Request.URL.String(), "another query": resp.Request.URL.String() + "&more"} {
		if resp, _ := ask(t, http.MethodGet, again); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", what, resp.Status)
		}
	}
	if resp, _ := ask(t, http.MethodHead, at); resp.StatusCode != http.StatusForbidden {
		t.Errorf("HEAD: %s", resp.Status)
	}
	if asked := strings.Join(fake.Transcript(), "\n"); !strings.Contains(asked, "GET storage app "+Short(d.Digest.String())) {
		t.Errorf("the transcript is\n%s", asked)
	}
	fake.Stop()
	if resp, err := http.Get(resp.Request.URL.String()); err == nil {
		resp.Body.Close()
		t.Error("a storage goes on without its registry")
	}
}

func TestAHiddenNameIsShownByThePingAlone(t *testing.T) {
	fake := New(t, WithAuth(Auth{Scheme: "basic", Username: "somebody", Password: "secret", Hidden: true}))
	fake.AddBlob("app", []byte("content"))
	if resp, _ := ask(t, http.MethodGet, fake.URL()+"/v2/app/tags/list"); resp.StatusCode != http.StatusNotFound || resp.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("tags: %s, %v", resp.Status, resp.Header)
	}
	if resp, _ := ask(t, http.MethodGet, fake.URL()+"/v2/"); resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("the ping: %s, %v", resp.Status, resp.Header)
	}
}

func TestAnAnswerByHandIsWhatItIsConfiguredToBe(t *testing.T) {
	fake := New(t)
	fake.AddManifest("app", "application/json", []byte("{}"), "1")
	fake.Throughout(Written(Wire{Version: "HTTP/1.0", Name: strings.ToUpper, Bare: true}))
	resp, body := ask(t, http.MethodGet, fake.URL()+"/v2/app/manifests/1")
	if resp.Proto != "HTTP/1.0" || body != "{}" || resp.ContentLength != -1 || resp.Header.Get("Docker-Content-Digest") == "" {
		t.Errorf("%s %q of %d bytes, %v", resp.Proto, body, resp.ContentLength, resp.Header)
	}
}
