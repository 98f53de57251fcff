#!/bin/sh
# Lets a user of a Kafka with ACLs do what one role of Rillfold does, and nothing else:
#
#   BOOTSTRAP=kafka.example.com:9094 ADMIN=admin.properties RILLFOLD_TOPIC_PREFIX=north- roles.sh ROLE USER
#
# Needs kafka-acls on the path (in Apache's own package it ends in .sh: link it). ADMIN says how whoever may grant rights
# gets in, by Kafka's own names (security.protocol, sasl.mechanism, sasl.jaas.config, ssl.truststore.location, ...).
# OWN_TOPICS="orders ..." names those that your application adds. Topics have the prefix, or none. Where RILLFOLD_TOPIC_MAP gives one another name, write it here.
set -eu
role=${1:?which role}
user=${2:?which user}
p=${RILLFOLD_TOPIC_PREFIX:-}

allow() {
    kafka-acls --bootstrap-server "${BOOTSTRAP:?host:port}" --command-config "${ADMIN:?a file}" \
        --add --allow-principal "User:$user" "$@"
}
topics() { # OPERATIONS NAMES: these very topics
    names=$(for name in $2; do printf ' --topic %s%s' "$p" "$name"; done)
    # shellcheck disable=SC2046,SC2086
    allow $(printf ' --operation %s' $1) $names
}
changelogs() { # OPERATIONS: rows and markers of every projection
    # shellcheck disable=SC2046
    allow $(printf ' --operation %s' $1) --resource-pattern-type prefixed --topic "${p}rillfold-"
}
groups() { # PATTERN NAME
    allow --operation Read --resource-pattern-type "$1" --group "$p$2"
}
claims() { # PATTERN NAMES: what shuts an older owner out
    names=$(for name in $2; do printf ' --transactional-id %s%s' "$p" "$name"; done)
    # shellcheck disable=SC2086
    allow --operation Write --operation Describe --resource-pattern-type "$1" $names
}
folding() { # A fold's own group, which its --only names, and the changelogs that it may claim; others' it only sees
    group=$(for name in rillfold $(printf '%s\n' ${ONLY:-} | LC_ALL=C sort); do printf '%s-' "$name"; done)
    groups literal "${group%-}"
    allow --operation Describe --resource-pattern-type prefixed --group "${p}rillfold"
    claims prefixed "$(for name in ${ONLY:-$projections ${OWN:-}}; do printf ' rillfold-%s-v' "$name"; done)"
}

wishes="company-data training-request adapter-request automation-job inference-request ${OWN_TOPICS:-}"
events="$wishes adapter-ready inference-result tool-call tool-result dead-letter"

projections="companies company_automation_jobs company_tools costs datasets files lora_adapters memories rollouts sessions"
projections="$projections tool_calls training_runs"

case $role in
admin) # rillfold topics create, check, list
    topics "Create Describe DescribeConfigs" "$events" ;;
producer) # rillfold produce, or any client
    topics "Write DescribeConfigs" "$wishes" ;;
fold) # rillfold worker fold; OWN="orders ...": with your projections; ONLY="files ...": with --only files ...
    topics "Read DescribeConfigs" "$events"
    topics "Write" "dead-letter automation-job inference-request tool-call"
    changelogs "Create Read Write DescribeConfigs"
    folding ;;
sink) # rillfold worker sink
    topics "Describe DescribeConfigs" "$events"
    changelogs "Read DescribeConfigs"
    groups prefixed rillfold-sink- ;;
bridge) # rillfold worker bridge
    topics "Read DescribeConfigs" "$events"
    topics "Write" "tool-result dead-letter"
    groups literal rillfold-tool-bridge ;;
serve) # rillfold worker serve
    topics "Read DescribeConfigs" "$events"
    topics "Write" "inference-result dead-letter"
    groups literal rillfold-serve ;;
react) # rillfold worker react
    topics "Read DescribeConfigs" "$events"
    topics "Write" "$wishes dead-letter"
    groups prefixed rillfold-react-
    claims prefixed rillfold-react- ;;
train) # rillfold worker train
    topics "Read DescribeConfigs" "$events"
    topics "Write" "training-request adapter-ready"
    groups literal rillfold-train ;;
mlflow) # rillfold worker mlflow
    topics "Read DescribeConfigs" "$events"
    groups literal rillfold-mlflow
    claims literal rillfold-mlflow ;;
api) # rillfold api, and the commands that speak for a company: job, tools, train
    topics "Read DescribeConfigs" "$events"
    topics "Write" "$wishes"
    # How far workers are, for `rillfold status`.
    allow --operation Describe --resource-pattern-type prefixed --group "${p}rillfold" ;;
promote) # rillfold adapters promote, withdraw, publish: which version answers, for every company
    topics "Read DescribeConfigs" "$events"
    topics "Write" "adapter-ready" ;;
reader) # rillfold projection, dlq list, dataset, trace
    topics "Read DescribeConfigs" "$events"
    changelogs "Read DescribeConfigs" ;;
redrive) # rillfold dlq redrive
    topics "Read Write DescribeConfigs" "$events"
    claims literal rillfold-redrive ;;
*)
    echo "roles.sh: '$role': admin, producer, fold, sink, bridge, serve, react, train, mlflow, api, promote, reader or redrive" >&2
    exit 64 ;;
esac
