package e2e

import "testing"

// These have no setting for mirrors: they are told the mirror's name before
// the image's.

func (s *suite) startCrane(t *testing.T, m *mirror) client {
	t.Helper()
	dir := s.folder(t)
	env, program := environment(dir), s.tool(t, "crane").program("crane")
	return &layouts{dir, func(t *testing.T, img image, folder string) {
		t.Helper()
		command(t, env, program, "pull", "--format=oci", m.address+"/"+img.reference(), folder)
	}}
}

func (s *suite) startOras(t *testing.T, m *mirror) client {
	t.Helper()
	dir := s.folder(t)
	env, program := environment(dir), s.tool(t, "oras").program("oras")
	return &layouts{dir, func(t *testing.T, img image, folder string) {
		t.Helper()
		command(t, env, program, "copy", "--from-plain-http", "--to-oci-layout", m.address+"/"+img.reference(), folder+":"+img.tag)
	}}
}

func (s *suite) startRegctl(t *testing.T, m *mirror) client {
	t.Helper()
	dir := s.folder(t)
	env, program := append(environment(dir), "REGCTL_CONFIG="+dir+"/regctl.json"), s.tool(t, "regctl").program("regctl")
	command(t, env, program, "registry", "set", m.address, "--tls", "disabled")
	return &layouts{dir, func(t *testing.T, img image, folder string) {
		t.Helper()
		command(t, env, program, "image", "copy", m.address+"/"+img.reference(), "ocidir://"+folder+":"+img.tag)
	}}
}
