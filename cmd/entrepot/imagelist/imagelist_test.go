package imagelist_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/cmd/entrepot/imagelist"
)

func written(all []imagelist.Entry) (texts []string) {
	for _, e := range all {
		texts = append(texts, fmt.Sprintf("%d %s", e.Line, e.Text))
	}
	return texts
}

func want(t *testing.T, got []imagelist.Entry, want ...string) {
	t.Helper()
	if texts := written(got); !slices.Equal(texts, want) {
		t.Errorf("read\n\t%s\nwant\n\t%s", strings.Join(texts, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestAListHasAnImageALine(t *testing.T) {
	all, err := imagelist.Lines(strings.NewReader("\ufeffalpine:3 # small\r\n\n# nothing\n\tghcr.io/org/app:v1.*\n  app@sha256:ab#c"), "images.txt")
	if err != nil {
		t.Fatal(err)
	}
	want(t, all, "1 alpine:3", "4 ghcr.io/org/app:v1.*", "5 app@sha256:ab#c")
	if where := all[1].Where(); where != "images.txt:4" {
		t.Error(where)
	}
	if _, err := imagelist.Lines(strings.NewReader(strings.Repeat("x", 1<<20)), "long.txt"); err == nil || !strings.Contains(err.Error(), "long.txt") {
		t.Errorf("a line of a megabyte: %v", err)
	}
}

func TestImagesOfKubernetesAreWhateverIsCalledThat(t *testing.T) {
	all, err := imagelist.Kubernetes(strings.NewReader(`
apiVersion: v1
kind: Pod
spec:
  containers:
  - {name: a, image: "alpine:3"}
  initContainers:
  - image: busybox
  ephemeralContainers: [{image: debug:1}]
  volumes:
  - image: {reference: "models:2", pullPolicy: Always}
---
apiVersion: v1
kind: List
items:
- kind: CronJob
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: cron:1}]}}}}}
---
{"kind": "Prometheus", "spec": {"image": "prom:3", "empty": {"image": ""}, "no": {"image": null}, "sidecar": {"image": {"registry": "ghcr.io", "repository": "org/app", "tag": 1.5, "digest": "sha256:ab"}}}}
---
kind: ConfigMap
data:
  text: |
    image: not-me:1
shared: &shared {image: "once:1"}
again: *shared
`), "all.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want(t, all, "6 alpine:3", "8 busybox", "9 debug:1", "11 models:2", "17 cron:1", "19 prom:3", "19 ghcr.io/org/app:1.5@sha256:ab", "25 once:1")
	if all, err := imagelist.Kubernetes(strings.NewReader("image: first:1\n---\nimage: {{ .Values.image }}\nx: [\n"), "chart.yaml"); err == nil || !strings.Contains(err.Error(), "chart.yaml") || len(all) != 1 {
		t.Errorf("a template that was not rendered: %v, %v", all, err)
	}
}

func TestImagesOfComposeHaveTheirVariablesReplaced(t *testing.T) {
	values := map[string]string{"TAG": "3", "EMPTY": ""}
	all, err := imagelist.Compose(strings.NewReader(`
services:
  a: {image: "alpine:${TAG}"}
  b: {image: "alpine:$TAG"}
  c: {image: "${REGISTRY:-docker.io}/app:${EMPTY:-1}${EMPTY-2}"}
  d: {image: "app${TAG:+-x}${NONE+-y}"}
  built: {build: .}
  e: {image: "cost$$1"}
x-image: {image: no}
`), "compose.yaml", func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, all, "3 alpine:3", "4 alpine:3", "5 docker.io/app:1", "6 app-x", "8 cost$1")
}
