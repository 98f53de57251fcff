#!/bin/sh
# Lets a company in by the door outside of server.properties, or shuts it out:
#
#   company.sh in acme FOLDER    leaves two files in FOLDER, readable by you alone:
#                                acme.properties for the company: its name and its password at Kafka
#                                acme.env for our workers: the prefix that they work under
#                                Run it again to give the company a new password.
#   company.sh out acme          at once, for connections that stand, too. What it wrote stays.
#   company.sh door              once, when the broker first runs: so many connections a second from one address
#
# Needs kafka-configs and kafka-acls on the path (in Apache's own package they end in .sh: link them).
# BOOTSTRAP is the door inside.
set -eu
umask 077

way=${1:?in, out or door}
bootstrap=${BOOTSTRAP:-127.0.0.1:9092}

addresses() {
    kafka-configs --bootstrap-server "$bootstrap" --alter --entity-type ips "$@"
}

if [ "$way" = door ]; then
    # Ours on this machine first: no bound for them.
    addresses --entity-name 127.0.0.1 --add-config connection_creation_rate=2147483647
    addresses --entity-default --add-config connection_creation_rate=10
    exit
fi

company=${2:?which company}
# No dots: "acme." then begins nobody else's prefix. Nothing else either that Kafka reads in a way of its own.
case $company in
*[!a-z0-9-]* | -*)
    echo "company.sh: '$company': a company is called by small letters, digits and hyphens here." >&2
    exit 64
    ;;
esac
prefix=$company.

user() {
    kafka-configs --bootstrap-server "$bootstrap" --alter --entity-type users --entity-name "$company" "$@"
}

rights() {
    # It says what it wishes and what it knows, and may ask how large a record may be. What workers say, they alone say.
    kafka-acls --bootstrap-server "$bootstrap" "$@" --allow-principal "User:$company" \
        --operation Write --operation DescribeConfigs \
        --topic "${prefix}company-data" \
        --topic "${prefix}training-request" \
        --topic "${prefix}adapter-request" \
        --topic "${prefix}automation-job" \
        --topic "${prefix}inference-request"
    # It reads all that is its own, in groups of its own: the workers' begin with the prefix, these with a slash after
    # the company.
    kafka-acls --bootstrap-server "$bootstrap" "$@" --allow-principal "User:$company" \
        --operation Read --resource-pattern-type prefixed --topic "$prefix" --group "$company/"
}

let_in() {
    password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    # By a file: the process list shows arguments to everybody.
    secret=$(mktemp)
    trap 'rm -f "$secret"' EXIT
    echo "SCRAM-SHA-512=iterations=8192,password=$password" >"$secret"
    user --add-config-file "$secret"
    # Bytes a second, and how much of the broker's threads its requests may take.
    user --add-config producer_byte_rate=5242880,consumer_byte_rate=10485760,request_percentage=50
    rights --add
    cat >"$1/$company.properties" <<END
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.username=$company
sasl.password=$password
END
    cat >"$1/$company.env" <<END
RILLFOLD_PROVIDER=external
RILLFOLD_BOOTSTRAP_SERVERS=$bootstrap
RILLFOLD_TOPIC_PREFIX=$prefix
RILLFOLD_DATA_DIR=/var/lib/rillfold/$company
END
}

case $way in
in) let_in "${3:?which folder for its files}" ;;
out)
    rights --remove --force
    user --delete-config SCRAM-SHA-512
    ;;
*)
    echo "company.sh: '$way': in, out or door" >&2
    exit 64
    ;;
esac
