package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

const (
	envPrefix = "ENTREPOT_"
	// EnvFile names the configuration file where no flag does.
	EnvFile = envPrefix + "CONFIG"
)

// variable is the name of the variable for a key's path.
func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// singleKeys are the paths that a variable can set: all outside of upstreams.
func singleKeys() []string {
	var paths []string
	leaves(reflect.ValueOf(Config{}), "", func(path string, _ reflect.Value) { paths = append(paths, path) })
	return paths
}

// checkEnvironment reports variables that mean nothing to entrepot, but for
// those that Kubernetes makes for a service that is called entrepot. One that
// is empty is as good as none.
func (r *report) checkEnvironment() {
	known := []string{EnvFile}
	for _, path := range singleKeys() {
		known = append(known, variable(path))
	}
	environment := os.Environ()
	slices.Sort(environment)
	for _, assignment := range environment {
		name, value, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" || slices.Contains(known, name) || fromKubernetes(assignment) {
			continue
		}
		place := Origin{Kind: FromEnvironment, Name: name}
		if name == envPrefix+"UPSTREAMS" || strings.HasPrefix(name, envPrefix+"UPSTREAMS_") {
			r.addAt(place, "", "upstreams can't be set by a variable", "set them in a file, named by --config or "+EnvFile)
		} else if near := nearestVariable(name, known); near != "" {
			r.addAt(place, "", "unknown variable", "did you mean "+near+"?")
		} else {
			r.addAt(place, "", "unknown variable", "unset it, or name a key as in "+variable("cache.dir")+", which is cache.dir")
		}
	}
}

func nearestVariable(name string, known []string) string {
	word := strings.TrimPrefix(name, envPrefix)
	var words []string
	for _, k := range known {
		words = append(words, strings.TrimPrefix(k, envPrefix))
	}
	near := Nearest(word, words)
	if near == "" {
		return ""
	}
	return envPrefix + near
}

// What Kubernetes tells each container of the services in its namespace, as
// pkg/kubelet/envvars makes it: name=value. Of a service called entrepot-admin
// the names go on with ADMIN_, and one may be called entrepot-service.
var fromServices = regexp.MustCompile(`^ENTREPOT(_[A-Z0-9_]+)?_(` +
	`(SERVICE_HOST|PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR)=[0-9a-f.:]+|` +
	`(SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)_PORT)=[0-9]+|` +
	`PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO=(tcp|udp|sctp)|` +
	`PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://[0-9a-f.:[\]]+)$`)

// fromKubernetes says whether a variable is one of those. ENTREPOT_PORT=5000 is
// none: somebody wrote it, and waits for it to do something.
func fromKubernetes(assignment string) bool { return fromServices.MatchString(assignment) }
