#!/bin/sh
# Runs inside a container of the base image: adds the rehearsal's own files (mounted at /layer) and trusts its CA.
set -eu
cp -a /layer/. /
update-ca-certificates
systemctl enable amazon-ssm-agent.service
