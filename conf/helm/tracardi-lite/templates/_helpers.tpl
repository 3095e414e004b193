{{- define "labels" -}}
app.kubernetes.io/name: tracardi-lite
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "container.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "pod" -}}
enableServiceLinks: false
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: data
    emptyDir: {}
  - name: tmp
    emptyDir: {}
{{- with .Values.tls.secret }}
  - name: tls
    secret: {secretName: {{ . }}}
{{- end }}
{{- end -}}

{{- define "mounts" -}}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
{{- if .Values.tls.secret }}
  - {name: tls, mountPath: /etc/tracardi-lite/tls, readOnly: true}
{{- end }}
{{- end -}}

{{- /* One variable from a secret: of the user's own, by valueFrom, or of the chart's, where a value was given. */ -}}
{{- define "secret.variable" -}}
{{- if .from }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .from.name }}
      key: {{ .from.key }}
{{- else if .value }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .name }}
{{- end }}
{{- end -}}

{{- define "environment" -}}
{{- $secret := printf "%s-tracardi-lite" .Release.Name -}}
{{- $s := .Values.secrets -}}
envFrom:
  - configMapRef:
      name: {{ .Release.Name }}-tracardi-lite
env:
{{- include "secret.variable" (dict "name" "AUTO_PROFILE_MERGING" "value" $s.mergingToken "from" $s.valueFrom.mergingToken "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "INSTALLATION_TOKEN" "value" $s.installation.token "from" $s.installation.valueFrom.token "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "ELASTIC_HTTP_AUTH_USERNAME" "value" $s.elastic.username "from" $s.elastic.valueFrom.username "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "ELASTIC_HTTP_AUTH_PASSWORD" "value" $s.elastic.password "from" $s.elastic.valueFrom.password "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "ELASTIC_API_KEY" "value" $s.elastic.apiKey "from" $s.elastic.valueFrom.apiKey "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "REDIS_PASSWORD" "value" $s.redis.password "from" $s.redis.valueFrom.password "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "PULSAR_AUTH_TOKEN" "value" $s.pulsar.token "from" $s.pulsar.valueFrom.token "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "MYSQL_USERNAME" "value" $s.mysql.username "from" $s.mysql.valueFrom.username "secret" $secret) | nindent 2 }}
{{- include "secret.variable" (dict "name" "MYSQL_PASSWORD" "value" $s.mysql.password "from" $s.mysql.valueFrom.password "secret" $secret) | nindent 2 }}
{{- end -}}

{{- /* A host as people write it, and as Tracardi's chart has it: schema and host apart. */ -}}
{{- define "address" -}}
{{- if or (not .host) (contains "://" .host) }}{{ .host }}{{ else }}{{ .schema }}{{ .host }}{{ end }}
{{- end -}}

{{- define "probes" -}}
startupProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 2
  failureThreshold: {{ add 30 (div (int .Values.config.waitForDependencies) 2) }}
livenessProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}
