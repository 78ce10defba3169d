package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

const (
	reportType    = "application/vnd.example.report"
	signatureType = "application/vnd.example.report.signature"
)

var orasKinds = []kind{
	{name: "anything, with a media type of its own", client: "oras", tool: "oras", push: pushFiles, take: takeFiles},
	{name: "what is attached to an image", client: "oras", tool: "oras", push: attachReport, take: discoverReport, hangs: true},
}

// files are what nobody but their makers knows: an RPM, a z/OS package, and a
// folder's worth of nothing.
var files = map[string]string{
	"tool.rpm":  strings.Repeat("an RPM's bytes\n", 9000),
	"tool.pax":  strings.Repeat("a z/OS package's bytes\n", 100),
	"empty.txt": "",
}

var fileTypes = map[string]string{
	"tool.rpm":  "application/x-rpm",
	"tool.pax":  "application/vnd.ibm.zos.pax",
	"empty.txt": "text/plain",
}

func pushFiles(e *errand) error {
	args := []string{"push", "--plain-http", "--artifact-type", "application/vnd.example.packages", e.ref("packages:1")}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if _, err := e.write(file, files[file]); err != nil {
			return err
		}
		args = append(args, file+":"+fileTypes[file])
	}
	_, err := e.run("oras", "oras", args...)
	return err
}

func takeFiles(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	_, err = e.run("oras", "oras", "pull", "--plain-http", "--output", into, e.ref("packages:1"))
	for file, content := range files {
		err = errors.Join(err, same(filepath.Join(into, file), content))
	}
	return err
}

// attachReport attaches a report to an image, and a signature to the report.
func attachReport(e *errand) error {
	image, err := e.pushImage("reported", "1", "reported")
	if err != nil {
		return err
	}
	report, err := e.attach(image, reportType, "report.json")
	if err != nil {
		return err
	}
	e.notes["report"] = report
	e.notes["signature"], err = e.attach(report, signatureType, "report.sig")
	return err
}

// attach attaches a file to a manifest, and returns the digest of what refers
// to it.
func (e *errand) attach(subject, artifactType, file string) (string, error) {
	if _, err := e.write(file, "the content of "+file); err != nil {
		return "", err
	}
	out, err := e.run("oras", "oras", "attach", "--plain-http", "--format", "json",
		"--artifact-type", artifactType, "--annotation", "org.example.of="+file, e.ref("reported@"+subject), file+":application/json")
	if err != nil {
		return "", err
	}
	var attached struct{ Digest string }
	if err := json.Unmarshal([]byte(out), &attached); err != nil || attached.Digest == "" {
		return "", fmt.Errorf("oras attach says %q: %w", out, err)
	}
	return attached.Digest, nil
}

// discoverReport finds the whole tree by the image's tag, the report by its
// type, and pulls its file.
func discoverReport(e *errand) error {
	type referrer struct {
		Digest       string
		ArtifactType string
		Annotations  map[string]string
		Referrers    []referrer
	}
	var found referrer
	out, err := e.run("oras", "oras", "discover", "--plain-http", "--format", "json", "--depth", "5", e.ref("reported:1"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		return fmt.Errorf("oras discover says %q: %w", out, err)
	}
	if len(found.Referrers) != 1 || len(found.Referrers[0].Referrers) != 1 {
		return fmt.Errorf("the tree is %s", out)
	}
	report, signature := found.Referrers[0], found.Referrers[0].Referrers[0]
	if report.Digest != e.notes["report"] || report.ArtifactType != reportType || report.Annotations["org.example.of"] != "report.json" ||
		signature.Digest != e.notes["signature"] || signature.ArtifactType != signatureType {
		return fmt.Errorf("the tree is %s, want the report %s with the signature %s", out, e.notes["report"], e.notes["signature"])
	}
	out, err = e.run("oras", "oras", "discover", "--plain-http", "--format", "tree", "--artifact-type", reportType, e.ref("reported@"+e.digest("reported")))
	if err != nil {
		return err
	}
	if !strings.Contains(out, e.notes["report"]) {
		return fmt.Errorf("the report is not in the tree\n%s", out)
	}
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	if _, err := e.run("oras", "oras", "pull", "--plain-http", "--output", into, e.ref("reported@"+e.notes["report"])); err != nil {
		return err
	}
	return same(filepath.Join(into, "report.json"), "the content of report.json")
}
