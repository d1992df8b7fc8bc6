{{- define "ruminate.name" -}}
{{- if contains "ruminate" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-ruminate" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Of one part: (list $ "api") */}}
{{- define "ruminate.selector" -}}
app.kubernetes.io/name: ruminate
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "ruminate.labels" -}}
{{ include "ruminate.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "ruminate.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{- define "ruminate.store" -}}
{{- if .Values.store }}{{ .Values.store }}{{ else if .Values.versitygw.enabled }}s3://jobs/v1{{ else }}{{ fail "store says where jobs are kept: s3://bucket/prefix (or versitygw.enabled, to try it)" }}{{ end }}
{{- end }}

{{/* An ElasticMQ of this chart, unless there is a queue. */}}
{{- define "ruminate.queueHost" -}}{{ include "ruminate.name" . }}-queue{{- end }}
{{- define "ruminate.queueEndpoint" -}}
{{- if .Values.queue.url }}{{ .Values.queue.endpoint }}{{ else }}http://{{ include "ruminate.queueHost" . }}:9324{{ end }}
{{- end }}
{{- define "ruminate.queue" -}}{{ .Values.queue.url | default (printf "%s/000000000000/jobs" (include "ruminate.queueEndpoint" .)) }}{{- end }}
{{- define "ruminate.batchQueue" -}}
{{- if .Values.queue.url }}{{ .Values.queue.batchUrl }}{{ else }}{{ include "ruminate.queueEndpoint" . }}/000000000000/jobs-batch{{ end }}
{{- end }}

{{/* What API and workers are told alike; extraEnv goes over it. */}}
{{- define "ruminate.env" -}}
{{- $s3 := .Values.s3.endpoint }}
{{- $pathStyle := .Values.s3.pathStyle }}
{{- if .Values.versitygw.enabled }}{{ $s3 = printf "http://%s-store:7070" (include "ruminate.name" .) }}{{ $pathStyle = true }}{{ end }}
{{- $env := dict "RUMINATE_STORE" (include "ruminate.store" .) "RUMINATE_QUEUE" (include "ruminate.queue" .) "AWS_REGION" .Values.region }}
{{- with include "ruminate.batchQueue" . }}{{ $_ := set $env "RUMINATE_BATCH_QUEUE" . }}{{ end }}
{{- with include "ruminate.queueEndpoint" . }}{{ $_ := set $env "RUMINATE_SQS_ENDPOINT" . }}{{ end }}
{{- with .Values.modelsStore }}{{ $_ := set $env "RUMINATE_MODELS_STORE" . }}{{ end }}
{{- with $s3 }}{{ $_ := set $env "RUMINATE_S3_ENDPOINT" . }}{{ end }}
{{- if $pathStyle }}{{ $_ := set $env "RUMINATE_S3_PATH_STYLE" "1" }}{{ end }}
{{- with .Values.key }}{{ $_ := set $env "RUMINATE_KEY" . }}{{ end }}
{{- with .Values.api.publicUrl }}{{ $_ := set $env "RUMINATE_PUBLIC_URL" . }}{{ end }}
{{- range $name, $value := merge (dict) .Values.extraEnv $env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.credentialsSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: { secretKeyRef: { name: {{ . }}, key: AWS_ACCESS_KEY_ID } }
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: { secretKeyRef: { name: {{ . }}, key: AWS_SECRET_ACCESS_KEY } }
{{- end }}
{{- end }}

{{- define "ruminate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "ruminate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* The image tells its health at 8787, whatever it runs. */}}
{{- define "ruminate.probes" -}}
startupProbe:
  httpGet: { path: /health/live, port: http }
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /health/live, port: http }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /health/ready, port: http }
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
