"""Every operation of ECR's JSON API that the lab serves, by clients whose model of the service checks the request and reads
the answer: the AWS CLI at its first success, boto3 from then on (it need not start anew) and for the refusals, since its
errors have types. Then boto3's paginators and waiters.

One line is one call. `ok(operation, want, **input)` holds the answer to the JMESPath expressions of `want`;
`refused(operation, error, **input)` wants that error."""

import base64
import contextlib
import hashlib
import json
import os
import re
import urllib.error
import urllib.request

import boto3
import jmespath
from botocore import xform_name
from botocore.exceptions import ClientError

from check import check, contains, folder, holds, lab, run, same, source

REGISTRY = lab("TOWPATH_LAB_REGISTRY")
TARGET = r'^        "([A-Z]\w+)" =>'

client = boto3.client("ecr")
by_cli = set()


def ok(operation, want=None, **given):
    """One call that succeeds; answers what it gave."""
    if operation in by_cli:
        answer = getattr(client, xform_name(operation))(**given)
    else:
        by_cli.add(operation)
        answer = cli(operation, given)
    for path, wanted in (want or {}).items():
        found = jmespath.search(path, answer)
        holds(wanted(found) if callable(wanted) else found == wanted, f"{operation}: {path} is {found!r}: {answer}")
    return answer


def cli(operation, given):
    """One call with the AWS CLI; a value that is `bytes` travels in a file."""
    command = ["aws", "ecr", xform_name(operation, "-"), "--output", "json"]
    for name, value in given.items():
        flag = xform_name(name, "-")
        if isinstance(value, bool):
            command.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        if isinstance(value, bytes):
            path = os.path.join(folder(), "value")
            with open(path, "wb") as file:
                file.write(value)
            value = f"fileb://{path}"
        command += [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]
    said = run(*command)
    return json.loads(said) if said.strip() else {}


def refused(operation, error, **given):
    """One call with boto3 that must be refused; answers what the error says."""
    try:
        answer = getattr(client, xform_name(operation))(**given)
    except ClientError as refusal:
        same((operation, refusal.response["Error"]["Code"]), (operation, error))
        typed = getattr(client.exceptions, error, None)
        holds(typed is None or isinstance(refusal, typed), f"{operation}: {type(refusal)} is not the model's")
        return refusal.response
    raise AssertionError(f"{operation} must be refused with {error}, and gave {answer}")


def something(found):
    return bool(found)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def session():
    repository = {"repositoryName": "ecr/app"}
    none = {"repositoryName": "ecr/none"}

    with check("ecr: tokens"):
        token = ok("GetAuthorizationToken", {"authorizationData[0].proxyEndpoint": f"http://{REGISTRY}"})
        pair = base64.b64decode(token["authorizationData"][0]["authorizationToken"]).decode()
        holds(pair.startswith("AWS:"), "the user is not AWS")
        password = run("aws", "ecr", "get-login-password").strip()
    creds = ("--tls-verify=false", "--creds", f"AWS:{password}")

    with check("ecr: repositories"):
        made = ok("CreateRepository", {"repository.repositoryUri": f"{REGISTRY}/ecr/app"}, **repository,
                  imageTagMutability="MUTABLE", tags=[{"Key": "team", "Value": "shop"}])
        arn = made["repository"]["repositoryArn"]
        refused("CreateRepository", "RepositoryAlreadyExistsException", **repository)
        refused("CreateRepository", "InvalidParameterException", repositoryName="Bad_")
        ok("DescribeRepositories", {"repositories[0].repositoryArn": arn}, repositoryNames=["ecr/app"])
        refused("DescribeRepositories", "RepositoryNotFoundException", repositoryNames=["ecr/none"])
        ok("PutImageTagMutability", {"imageTagMutability": "IMMUTABLE"}, **repository, imageTagMutability="IMMUTABLE")
        ok("PutImageTagMutability", {"imageTagMutability": "MUTABLE"}, **repository, imageTagMutability="MUTABLE")
        refused("PutImageTagMutability", "RepositoryNotFoundException", **none, imageTagMutability="MUTABLE")

    with check("ecr: tags of a resource"):
        ok("TagResource", resourceArn=arn, tags=[{"Key": "stage", "Value": "dev"}])
        ok("ListTagsForResource", {"tags[?Key=='stage'].Value | [0]": "dev", "length(tags)": 2}, resourceArn=arn)
        ok("UntagResource", resourceArn=arn, tagKeys=["stage"])
        ok("ListTagsForResource", {"tags[].Key": ["team"]}, resourceArn=arn)
        refused("ListTagsForResource", "RepositoryNotFoundException", resourceArn=arn.replace("/app", "/none"))

    with check("ecr: a layer and a config in parts, and their image"):
        layer = os.urandom(5 << 20) + b"the last part may be small"
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {
            "type": "layers", "diff_ids": [digest_of(layer)]}}).encode()
        ok("BatchCheckLayerAvailability", {"layers[].layerAvailability": ["UNAVAILABLE"]}, **repository,
           layerDigests=[digest_of(layer)])
        for data, parts in ((layer, (5 << 20, len(layer))), (config, (len(config),))):
            upload = ok("InitiateLayerUpload", {"partSize": something}, **repository)["uploadId"]
            here = {**repository, "uploadId": upload}
            refused("CompleteLayerUpload", "EmptyUploadException", **here, layerDigests=[digest_of(data)])
            first = 0
            for end in parts:
                ok("UploadLayerPart", {"lastByteReceived": end - 1}, **here, partFirstByte=first, partLastByte=end - 1,
                   layerPartBlob=data[first:end])
                first = end
            wrong = refused("UploadLayerPart", "InvalidLayerPartException", **here, partFirstByte=0, partLastByte=0,
                            layerPartBlob=b"x")
            same(wrong["lastValidByteReceived"], len(data) - 1)
            ok("CompleteLayerUpload", {"layerDigest": digest_of(data)}, **here, layerDigests=[digest_of(data)])
            refused("CompleteLayerUpload", "UploadNotFoundException", **here, layerDigests=[digest_of(data)])
        refused("InitiateLayerUpload", "RepositoryNotFoundException", **none)
        refused("GetDownloadUrlForLayer", "LayerInaccessibleException", **repository, layerDigest=digest_of(layer))
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config),
                       "size": len(config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(layer),
                        "size": len(layer)}],
        }
        text = json.dumps(manifest)
        image = digest_of(text.encode())
        by_digest = {**repository, "imageId": {"imageDigest": image}}
        ok("PutImage", {"image.imageId": {"imageDigest": image, "imageTag": "1"}}, **repository, imageManifest=text,
           imageTag="1")
        refused("PutImage", "ImageAlreadyExistsException", **repository, imageManifest=text, imageTag="1")
        absent = text.replace(digest_of(layer), "sha256:" + "0" * 64)
        refused("PutImage", "LayersNotFoundException", **repository, imageManifest=absent, imageTag="2")
        url = ok("GetDownloadUrlForLayer", {"downloadUrl": something}, **repository, layerDigest=digest_of(layer))
        with urllib.request.urlopen(url["downloadUrl"], timeout=30) as answer:
            holds(answer.read() == layer, "the storage has other bytes")
        twice = urllib.request.Request(url["downloadUrl"], headers={"Authorization": "Basic eDp5"})
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(twice, timeout=30)
            raise AssertionError("the storage took a second authorization")
        refused("GetDownloadUrlForLayer", "LayersNotFoundException", **repository, layerDigest="sha256:" + "0" * 64)
        run("skopeo", "copy", "--src-tls-verify=false", "--src-creds", f"AWS:{password}",
            f"docker://{REGISTRY}/ecr/app:1", f"dir:{folder()}")

    with check("ecr: images"):
        ok("ListImages", {"imageIds[].imageTag": ["1"]}, **repository, filter={"tagStatus": "TAGGED"})
        ok("DescribeImages", {"imageDetails[0].imageDigest": image, "imageDetails[0].imageTags": ["1"]}, **repository)
        refused("DescribeImages", "ImageNotFoundException", **repository, imageIds=[{"imageTag": "none"}])
        got = ok("BatchGetImage", {"failures[].failureCode": ["ImageNotFound"]}, **repository,
                 imageIds=[{"imageTag": "1"}, {"imageTag": "none"}])
        same(got["images"][0]["imageManifest"], text)
        ok("PutImageTagMutability", **repository, imageTagMutability="IMMUTABLE")
        other = json.dumps({**manifest, "annotations": {"other": "yes"}})
        refused("PutImage", "ImageTagAlreadyExistsException", **repository, imageManifest=other, imageTag="1")
        ok("PutImageTagMutability", **repository, imageTagMutability="MUTABLE")

    with check("ecr: referrers"):
        artifact = json.dumps({
            **manifest, "artifactType": "application/vnd.example.sbom",
            "subject": {"mediaType": manifest["mediaType"], "digest": image, "size": len(text)},
        })
        ok("PutImage", **repository, imageManifest=artifact, imageDigest=digest_of(artifact.encode()))
        ok("ListImageReferrers", {"referrers[].[digest, artifactType]": [
            [digest_of(artifact.encode()), "application/vnd.example.sbom"]]}, **repository,
            subjectId={"imageDigest": image})
        refused("ListImageReferrers", "RepositoryNotFoundException", **none, subjectId={"imageDigest": image})

    with check("ecr: replication and signing of an image"):
        ok("DescribeImageReplicationStatus", {"imageId.imageDigest": image}, **by_digest)
        ok("DescribeImageSigningStatus", {"imageId.imageDigest": image}, **by_digest)
        for operation in ("DescribeImageReplicationStatus", "DescribeImageSigningStatus"):
            refused(operation, "ImageNotFoundException", **repository, imageId={"imageTag": "none"})

    with check("ecr: storage class"):
        ok("UpdateImageStorageClass", {"imageStatus": something}, **by_digest, targetStorageClass="ARCHIVE")
        ok("UpdateImageStorageClass", {"imageStatus": something}, **by_digest, targetStorageClass="STANDARD")
        refused("UpdateImageStorageClass", "ImageNotFoundException", **repository, imageId={"imageTag": "none"},
                targetStorageClass="ARCHIVE")

    with check("ecr: policies of a repository and of the registry"):
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{
            "Sid": "Pull", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::210987654321:root"},
            "Action": ["ecr:BatchGetImage"]}]})
        refused("GetRepositoryPolicy", "RepositoryPolicyNotFoundException", **repository)
        ok("SetRepositoryPolicy", {"policyText": something}, **repository, policyText=policy)
        same(json.loads(ok("GetRepositoryPolicy", **repository)["policyText"]), json.loads(policy))
        ok("DeleteRepositoryPolicy", {"policyText": something}, **repository)
        refused("SetRepositoryPolicy", "InvalidParameterException", **repository, policyText="{")
        refused("GetRegistryPolicy", "RegistryPolicyNotFoundException")
        ok("PutRegistryPolicy", {"policyText": something}, policyText=policy.replace('"Sid"', '"Resource": "*", "Sid"'))
        ok("GetRegistryPolicy", {"policyText": something})
        ok("DeleteRegistryPolicy", {"registryId": something})
        refused("DeleteRegistryPolicy", "RegistryPolicyNotFoundException")

    with check("ecr: lifecycle policy and its preview"):
        rules = json.dumps({"rules": [{"rulePriority": 1, "selection": {
            "tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1}, "action": {"type": "expire"}}]})
        refused("GetLifecyclePolicy", "LifecyclePolicyNotFoundException", **repository)
        ok("PutLifecyclePolicy", {"lifecyclePolicyText": something}, **repository, lifecyclePolicyText=rules)
        ok("GetLifecyclePolicy", {"lifecyclePolicyText": something}, **repository)
        refused("PutLifecyclePolicy", "InvalidParameterException", **repository, lifecyclePolicyText="{" * 100)
        ok("StartLifecyclePolicyPreview", {"status": "IN_PROGRESS"}, **repository)
        client.get_waiter("lifecycle_policy_preview_complete").wait(**repository, WaiterConfig={"Delay": 1})
        ok("GetLifecyclePolicyPreview", {"status": "COMPLETE"}, **repository)
        ok("DeleteLifecyclePolicy", {"lifecyclePolicyText": something}, **repository)

    with check("ecr: scans, and boto3's waiter for them"):
        # Without rules a push starts no scan; with them it would have used up the image's one scan of the day.
        ok("PutRegistryScanningConfiguration", scanType="BASIC", rules=[])
        scanned = json.dumps({**manifest, "annotations": {"scanned": "yes"}})
        ok("PutImage", **repository, imageManifest=scanned, imageTag="scan")
        tagged = {**repository, "imageId": {"imageTag": "scan"}}
        refused("DescribeImageScanFindings", "ScanNotFoundException", **tagged)
        ok("StartImageScan", {"imageScanStatus.status": something}, **tagged)
        refused("StartImageScan", "LimitExceededException", **tagged)
        client.get_waiter("image_scan_complete").wait(**tagged, WaiterConfig={"Delay": 1})
        ok("DescribeImageScanFindings", {"imageScanStatus.status": "COMPLETE"}, **tagged)
        refused("DescribeImageScanFindings", "ImageNotFoundException", **repository, imageId={"imageTag": "none"})
        ok("PutImageScanningConfiguration", {"imageScanningConfiguration.scanOnPush": True}, **repository,
           imageScanningConfiguration={"scanOnPush": True})
        rule = {"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "ecr/*", "filterType": "WILDCARD"}]}
        ok("PutRegistryScanningConfiguration", scanType="BASIC", rules=[rule])
        ok("GetRegistryScanningConfiguration", {"scanningConfiguration.rules": [rule]})
        ok("BatchGetRepositoryScanningConfiguration", {"scanningConfigurations[0].scanOnPush": True,
           "length(failures)": 1}, repositoryNames=["ecr/app", "ecr/none"])

    with check("ecr: settings of the account and of the registry"):
        ok("PutAccountSetting", {"value": "AWS_NATIVE"}, name="BASIC_SCAN_TYPE_VERSION", value="AWS_NATIVE")
        ok("GetAccountSetting", {"value": "AWS_NATIVE"}, name="BASIC_SCAN_TYPE_VERSION")
        refused("GetAccountSetting", "InvalidParameterException", name="NO_SUCH_SETTING")
        replication = {"rules": [{"destinations": [{"region": "eu-central-1", "registryId": "123456789012"}],
                                  "repositoryFilters": [{"filter": "ecr/", "filterType": "PREFIX_MATCH"}]}]}
        ok("PutReplicationConfiguration", replicationConfiguration=replication)
        ok("DescribeRegistry", {"replicationConfiguration.rules[0].destinations[0].region": "eu-central-1"})
        ok("PutReplicationConfiguration", replicationConfiguration={"rules": []})
        profile = f"arn:aws:signer:{lab('AWS_REGION')}:123456789012:/signing-profiles/peers"
        signing = {"rules": [{"signingProfileArn": profile,
                              "repositoryFilters": [{"filter": "ecr/signed*", "filterType": "WILDCARD_MATCH"}]}]}
        refused("GetSigningConfiguration", "SigningConfigurationNotFoundException")
        ok("PutSigningConfiguration", signingConfiguration=signing)
        ok("GetSigningConfiguration", {"signingConfiguration.rules[0].signingProfileArn": profile})
        ok("DeleteSigningConfiguration")
        role = "arn:aws:iam::123456789012:role/scanner"
        ok("RegisterPullTimeUpdateExclusion", {"principalArn": role}, principalArn=role)
        ok("ListPullTimeUpdateExclusions", {"pullTimeUpdateExclusions": [role]})
        ok("DeregisterPullTimeUpdateExclusion", {"principalArn": role}, principalArn=role)
        refused("DeregisterPullTimeUpdateExclusion", "ExclusionNotFoundException", principalArn=role)

    with check("ecr: repository creation templates, one applied by a push"):
        template = {"prefix": "made"}
        ok("CreateRepositoryCreationTemplate", {"repositoryCreationTemplate.prefix": something}, **template,
           appliedFor=["CREATE_ON_PUSH"], imageTagMutability="MUTABLE")
        refused("CreateRepositoryCreationTemplate", "TemplateAlreadyExistsException", **template,
                appliedFor=["CREATE_ON_PUSH"])
        ok("UpdateRepositoryCreationTemplate", **template, imageTagMutability="IMMUTABLE")
        ok("DescribeRepositoryCreationTemplates", {"repositoryCreationTemplates[0].imageTagMutability": "IMMUTABLE"})
        run("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", f"AWS:{password}",
            "--dest-creds", f"AWS:{password}", f"docker://{REGISTRY}/ecr/app:1", f"docker://{REGISTRY}/made/by-push:1")
        ok("DescribeRepositories", {"repositories[0].imageTagMutability": "IMMUTABLE"}, repositoryNames=["made/by-push"])
        ok("DeleteRepositoryCreationTemplate", **template)
        refused("DeleteRepositoryCreationTemplate", "TemplateNotFoundException", **template)

    with check("ecr: pull-through cache rules"):
        rule = {"ecrRepositoryPrefix": "peers-public"}
        ok("CreatePullThroughCacheRule", **rule, upstreamRegistryUrl="public.ecr.aws")
        refused("CreatePullThroughCacheRule", "PullThroughCacheRuleAlreadyExistsException", **rule,
                upstreamRegistryUrl="public.ecr.aws")
        refused("CreatePullThroughCacheRule", "UnsupportedUpstreamRegistryException", ecrRepositoryPrefix="other",
                upstreamRegistryUrl="registry.example.com")
        ok("DescribePullThroughCacheRules", {"pullThroughCacheRules[0].upstreamRegistryUrl": "public.ecr.aws"},
           ecrRepositoryPrefixes=["peers-public"])
        ok("ValidatePullThroughCacheRule", {"isValid": True}, **rule)
        secret = f"arn:aws:secretsmanager:{lab('AWS_REGION')}:123456789012:secret:ecr-pullthroughcache/lab-abcdef"
        ok("UpdatePullThroughCacheRule", {"credentialArn": secret}, **rule, credentialArn=secret)
        ok("DeletePullThroughCacheRule", **rule)
        refused("DeletePullThroughCacheRule", "PullThroughCacheRuleNotFoundException", **rule)

    with check("boto3's paginators read what one call would"):
        for number in range(3):
            ok("CreateRepository", repositoryName=f"ecr/page-{number}")
            for name, more in (("CreatePullThroughCacheRule", {"upstreamRegistryUrl": "quay.io"}),
                               ("CreateRepositoryCreationTemplate", {"appliedFor": ["REPLICATION"]})):
                prefix = "ecrRepositoryPrefix" if "Cache" in name else "prefix"
                getattr(client, xform_name(name))(**{prefix: f"page-{number}"}, **more)
        for operation, member, key, given in (
            ("list_images", "imageIds", "imageDigest", repository),
            ("describe_images", "imageDetails", "imageDigest", repository),
            ("describe_repositories", "repositories", "repositoryName", {}),
            ("describe_pull_through_cache_rules", "pullThroughCacheRules", "ecrRepositoryPrefix", {}),
            ("describe_repository_creation_templates", "repositoryCreationTemplates", "prefix", {}),
        ):
            whole = [found[key] for found in getattr(client, operation)(**given)[member]]
            pages = list(client.get_paginator(operation).paginate(**given, PaginationConfig={"PageSize": 1}))
            holds(all(len(page[member]) <= 1 for page in pages), f"{operation}: a page is too long")
            same((operation, [found[key] for page in pages for found in page[member]]), (operation, whole))
            holds(len(whole) > 2, f"{operation}: {whole} is too little to page through")
        for number in range(3):
            client.delete_pull_through_cache_rule(ecrRepositoryPrefix=f"page-{number}")
            client.delete_repository_creation_template(prefix=f"page-{number}")

    with check("ecr: deletions"):
        ok("BatchDeleteImage", {"imageIds[].imageTag": ["scan"], "failures[].failureCode": ["ImageNotFound"]},
           **repository, imageIds=[{"imageTag": "scan"}, {"imageTag": "none"}])
        refused("DeleteRepository", "RepositoryNotEmptyException", **repository)
        ok("DeleteRepository", **repository, force=True)
        refused("DeleteRepository", "RepositoryNotFoundException", **repository)
        contains(run("skopeo", "list-tags", *creds, f"docker://{REGISTRY}/ecr/app", fails=True), "404")

    with check("ecr: a wrong key and a wrong secret are refused"):
        wrong = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
        said = run("aws", "ecr", "describe-registry", fails=True, env=wrong)
        holds("InvalidSignatureException" in said or "SignatureDoesNotMatch" in said, said)
        wrong = {**os.environ, "AWS_ACCESS_KEY_ID": "AKIAWRONG"}
        contains(run("aws", "ecr", "describe-registry", fails=True, env=wrong), "UnrecognizedClientException")

    with check("every ECR operation of the lab was called"):
        served = set(re.findall(TARGET, source("crates/towpath-lab/src/ecr/api/mod.rs"), re.M))
        holds(len(served) > 20, f"only {len(served)} operations were found in the source")
        same((sorted(served - by_cli), sorted(by_cli - served)), ([], []))
        known = set(client.meta.service_model.operation_names)
        print(f"      {len(served & known)} of the {len(known)} operations that botocore knows", flush=True)
