package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func (s *server) write(name, content string) (string, error) {
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}

func entrepotArguments(s *server, up *upstream) ([]string, error) {
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file, err := s.write("entrepot.yaml", fmt.Sprintf(`listen: %s
admin: %s
cache: {dir: %q}
freshness: {tag_ttl: 1h}
upstreams:
  - name: docker.io
    endpoints: ["http://%s"]
    default: true
%s`, s.host, admin, filepath.Join(s.dir, "cache"), up.host, s.cert.entrepot()))
	return []string{"serve", "--config", file}, err
}

func distributionArguments(s *server, up *upstream) ([]string, error) {
	file, err := s.write("registry.yml", fmt.Sprintf(`version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: %q}
  cache: {blobdescriptor: inmemory}
http: {addr: %q, draintimeout: 1s}
proxy: {remoteurl: "http://%s"}
`, filepath.Join(s.dir, "store"), s.host, up.host))
	return []string{"serve", file}, err
}

// nginxArguments lets nginx fetch each thing once as well, which makes the
// others wait for the whole of it.
func nginxArguments(s *server, up *upstream) ([]string, error) {
	file, err := s.write("nginx.conf", fmt.Sprintf(`daemon off;
user root;
pid %[1]s/pid;
worker_processes auto;
error_log %[1]s/error.log warn;
events { worker_connections 1024; }
http {
  # The fields of entrepot's line, written together as those are.
  log_format line escape=json 'time=$time_iso8601 msg=request method=$request_method path=$uri status=$status bytes=$body_bytes_sent outcome=$upstream_cache_status took=$request_time client=$remote_addr agent=$http_user_agent';
  access_log %[1]s/access.log line buffer=64k flush=1s;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/temp;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  proxy_cache_path %[1]s/cache levels=1:2 keys_zone=registry:10m use_temp_path=off;
  server {
    listen %[2]s%[4]s;
    location / {
      proxy_pass http://%[3]s;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache registry;
      proxy_cache_key $uri$is_args$args;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 10m;
      proxy_cache_lock_age 10m;
    }
  }
}
`, s.dir, s.host, up.host, s.cert.nginx()))
	return []string{"-p", s.dir, "-e", filepath.Join(s.dir, "error.log"), "-c", file}, err
}

// bareArguments writes all that can be asked for into files.
func bareArguments(s *server, up *upstream) ([]string, error) {
	for path, c := range up.paths() {
		if path == "/v2/" {
			continue
		}
		file := filepath.Join(s.dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, c.bytes, 0o644); err != nil {
			return nil, err
		}
	}
	return append([]string{"-bare", s.host, "-work", s.dir}, s.cert.bare()...), nil
}
