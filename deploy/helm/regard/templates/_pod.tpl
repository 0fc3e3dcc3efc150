{{/* Parts of the pod that would hide the rest of it. */}}

{{- define "regard.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.user }}
runAsGroup: {{ int64 .Values.user }}
fsGroup: {{ int64 .Values.user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "regard.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "regard.resources" -}}
{{- $gpus := dict -}}
{{- with .Values.gpu }}{{ if .count }}{{ $gpus = dict "limits" (dict .resource .count) }}{{ end }}{{ end -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.resources) $gpus) -}}
{{- end }}

{{- define "regard.modelsVolume" -}}
{{- with .Values.models -}}
{{- $given := list .claim .hostPath .image | compact -}}
{{- if ne (len $given) 1 -}}
{{- fail (printf "models: give exactly one of models.claim, models.hostPath and models.image, not %d" (len $given)) -}}
{{- end -}}
name: models
{{- if .claim }}
persistentVolumeClaim:
  claimName: {{ .claim }}
  readOnly: true
{{- else if .hostPath }}
hostPath:
  path: {{ .hostPath }}
  type: Directory
{{- else }}
emptyDir: {}
{{- end }}
{{- end -}}
{{- end }}

{{- define "regard.probe" -}}
grpc:
  port: {{ .port }}
  service: ""
{{ toYaml .timing }}
{{- end }}
