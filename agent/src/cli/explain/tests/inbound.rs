//! Faults of calls to this VM.

use super::*;

/// Faults of calls to the VM, port 3550.
pub(super) const INBOUND: &[(Cause, &str, Spoil)] = &[
    (Cause::PortNotCaptured, "a port past Envoy", |it| {
        it.trace().redirected = None;
    }),
    (Cause::PortNotCaptured, "ssh", |it| {
        it.state.question.target = ":22".parse().unwrap();
        it.trace().redirected = None;
    }),
    (Cause::PastEnvoy, "a connection of before the rules", |it| {
        it.state.question.target = "10.200.0.4:40000->:3550".parse().unwrap();
        connected(it, 3550);
    }),
    (Cause::RulesMissing, "no rules", |it| {
        it.without_rules();
    }),
    (Cause::Firewall, "a firewall before 15006", |it| {
        it.state.closed = Ok((vec![15006], vec!["ufw allow 15006/tcp".to_owned()]));
    }),
    (Cause::UnknownPort, "a port that no Service has", |it| {
        it.state.question.target = "->:3551".parse().unwrap();
        it.state.listening = vec!["0.0.0.0:3551".parse().unwrap()];
    }),
    (Cause::StrictPlaintext, "STRICT, and a caller without TLS", |it| {
        it.state.question.plaintext = true;
        strict(it);
    }),
    (
        Cause::StrictPlaintext,
        "STRICT, and a caller that is not of the mesh",
        |it| {
            it.state.question.target = "10.9.9.9->:3550".parse().unwrap();
            strict(it);
        },
    ),
    (Cause::CertificateExpired, "a certificate that is over", |it| {
        it.state.now += Duration::from_secs(9 * 86_400);
    }),
    (Cause::RbacDenied, "a policy that allows nobody", |it| {
        it.add_rbac(&json!({}));
    }),
    (Cause::RbacDenied, "a policy for another caller", |it| {
        it.state.question.principal = Some("spiffe://cluster.local/ns/onlineboutique/sa/cart".to_owned());
        it.add_rbac(&allow_frontend());
    }),
    (
        Cause::RbacDenied,
        "a policy for a certificate, and a caller without one",
        |it| {
            it.state.question.plaintext = true;
            it.add_rbac(&allow_frontend());
        },
    ),
    (Cause::RbacDenied, "a policy that denies an address", |it| {
        it.state.question.target = "10.200.0.4->:3550".parse().unwrap();
        let principals = json!([{"and_ids": {"ids": [{"or_ids": {"ids": [
            {"direct_remote_ip": {"address_prefix": "10.200.0.0", "prefix_len": 24}}]}}]}}]);
        let permissions = json!([{"and_rules": {"rules": [{"any": true}]}}]);
        let policies = json!({"ns[shop]-policy[no]-rule[0]": {"permissions": permissions, "principals": principals}});
        it.add_rbac(&json!({"action": "DENY", "policies": policies}));
    }),
    (Cause::NotListening, "no application", |it| it.state.listening.clear()),
    (Cause::LoopbackOnly, "an application on loopback", |it| {
        it.state.listening = vec!["127.0.0.1:3550".parse().unwrap()];
    }),
    (Cause::ContainerDown, "a container that is down", |it| {
        let error = "it exits with 1".to_owned();
        it.state.agent.container = ByWorkload::Only(ContainerState::Failed { error, gone: true });
        it.state.listening.clear();
    }),
    (Cause::ProbeFailing, "a probe that fails", |it| {
        let reason = "NOT_SERVING".to_owned();
        it.state.agent.probe = ProbeState::Unhealthy { reason };
    }),
    (Cause::NotListed, "a VM that istiod gives to nobody", |it| {
        it.items("dynamic_endpoint_configs").clear();
    }),
    (Cause::EnvoyDown, "Envoy dead", |it| {
        it.state.envoy = Err("no socket".to_owned());
    }),
];

/// Such a call has no certificate, so that a policy for one keeps it out; by loopback the application may listen there alone.
#[test]
fn user_of_this_vm_meets_the_policies_of_the_application_here() {
    for target in ["10.200.0.3:3550", "127.0.0.1:3550/shop.Catalog/List"] {
        let by_user = || {
            let mut world = World::asked(target);
            world.trace().redirected = Some(15006);
            world
        };
        let chain = by_user().explained();
        assert!(chain.decision().is_none(), "{}", shown(target, &chain));
        let mut world = by_user();
        world.add_rbac(&allow_frontend());
        let chain = world.explained();
        let cause = chain.decision().and_then(|step| step.cause);
        assert_eq!(cause, Some(Cause::RbacDenied), "{}", shown(target, &chain));
    }
    for redirected in [Some(15006), None] {
        let mut world = World::asked("127.0.0.1:3550");
        world.trace().redirected = redirected;
        world.state.listening = vec!["127.0.0.1:3550".parse().unwrap()];
        assert!(world.explained().decision().is_none());
    }
}

#[test]
fn call_of_root_to_the_application_here_is_told_as_it_goes() {
    for target in ["10.200.0.3:3550", "127.0.0.1:3550"] {
        let mut world = World::asked(target);
        world.state.question.owner = Some((0, 0));
        world.state.vm.published.insert(3550, "web".to_owned());
        world.state.rules.as_mut().unwrap().traces[1] = Trace {
            redirected: None,
            exception: Some(Exception::Own),
            rules: vec!["ISTIO_LOCAL: meta skuid 0 return".to_owned()],
        };
        let chain = world.explained();
        let text = shown(target, &chain);
        assert!(chain.decision().is_none(), "{text}");
        for words in [
            "user 0 calls the application as it is, past Envoy",
            "meta skuid 0 return",
            "the container runs",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
