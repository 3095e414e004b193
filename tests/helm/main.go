// Renders a chart as `helm template` does, with the same template language, for where there is no helm.
//
//	render CHART RELEASE NAMESPACE [VALUES.yaml ...]
//
// The functions are text/template's, sprig's, and of helm's own those that our chart uses: include and toYaml. A chart
// that needs more fails here, which keeps it simple. Missing keys of values are errors nowhere, as in helm.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"sigs.k8s.io/yaml"
)

type object = map[string]interface{}

func main() {
	if len(os.Args) < 4 {
		fail(fmt.Errorf("usage: render CHART RELEASE NAMESPACE [VALUES.yaml ...]"))
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fail(err)
	}
	fmt.Print(text)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func render(chart, release, namespace string, valueFiles []string) (string, error) {
	about, err := read(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return "", err
	}
	values, err := read(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return "", err
	}
	for _, file := range valueFiles {
		more, err := read(file)
		if err != nil {
			return "", err
		}
		merge(values, more)
	}
	base := fmt.Sprint(about["name"], "/templates")
	data := object{
		"Values":   values,
		"Chart":    object{"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
		"Release":  object{"Name": release, "Namespace": namespace, "Service": "Helm"},
		"Template": object{"BasePath": base},
	}
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return "", err
	}
	sort.Strings(files)
	root := template.New(base)
	root.Funcs(sprig.TxtFuncMap()).Funcs(template.FuncMap{
		"include": func(name string, data interface{}) (string, error) {
			var out strings.Builder
			err := root.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
		"toYaml": func(value interface{}) (string, error) {
			out, err := yaml.Marshal(value)
			return strings.TrimSuffix(string(out), "\n"), err
		},
	})
	names := []string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		name := base + "/" + filepath.Base(file)
		if _, err := root.New(name).Parse(string(text)); err != nil {
			return "", err
		}
		if filepath.Base(file) != "_helpers.tpl" {
			names = append(names, name)
		}
	}
	var all strings.Builder
	for _, name := range names {
		var out bytes.Buffer
		if err := root.ExecuteTemplate(&out, name, data); err != nil {
			return "", err
		}
		if strings.HasSuffix(name, "NOTES.txt") {
			// Told to people; here as a comment, so that what is printed stays YAML.
			notes := strings.TrimSpace(out.String())
			fmt.Fprintf(&all, "# %s\n", strings.ReplaceAll(notes, "\n", "\n# "))
		} else if len(bytes.TrimSpace(out.Bytes())) > 0 {
			fmt.Fprintf(&all, "---\n# Source: %s\n%s\n", name, out.String())
		}
	}
	return all.String(), nil
}

func read(file string) (object, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found := object{}
	return found, yaml.Unmarshal(text, &found)
}

// merge lays over onto base: maps are merged, all else is replaced, null removes.
func merge(base, over object) {
	for key, value := range over {
		mine, isMap := base[key].(object)
		theirs, areBoth := value.(object)
		switch {
		case value == nil:
			delete(base, key)
		case isMap && areBoth:
			merge(mine, theirs)
		default:
			base[key] = value
		}
	}
}
