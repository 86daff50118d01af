# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_istio_vm_agent_global_optspecs
    string join \n config= o/output= h/help
end

function __fish_istio_vm_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_istio_vm_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_istio_vm_agent_using_subcommand
    set -l cmd (__fish_istio_vm_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "run" -d 'Join the mesh and stay until SIGTERM (what the unit starts)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "up" -d 'Join the mesh from nothing: write the configuration, get Envoy, check, plan, ask, start, wait, call'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "down" -d 'Leave the mesh and put the host back; the agent doesn\'t start at boot any more'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "check" -d 'Say what would keep this VM from joining, and what to do about it. Changes nothing on this VM'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "config" -d 'Judge the configuration and the bundle at hand, or show what is in effect. Changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "plan" -d 'Show what `run` would change on this host: a summary, what is never touched, a diff. Changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "reload" -d 'Have the running agent take up the configuration; a bad one is refused and changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "revert" -d 'Put the host back as it was, without a running agent'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "import" -d 'Take over what Istio\'s own agent (istio-sidecar) was told, and with --switch its place'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "status" -d 'Say what is wrong first, then who this VM is and how each part of the agent is'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "explain" -d 'Say why a call from this VM or to it fails, from what is on this VM alone, and what to do. Changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "dns" -d 'Ask the agent for a name, or for the name of an address, as programs on this VM do, and say who knows it'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "proxy" -d 'Show Envoy\'s side of the mesh as `istioctl proxy-config` does, without istiod, with `-o yaml` too. Shows no secrets'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "manifests" -d 'Print what the cluster side needs for a group of VMs, for `kubectl apply -f -`. Asks no cluster'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "bugreport" -d 'Put what is known of this VM into an archive, without secrets, for whoever is to find out what is wrong'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "version" -d 'Print the versions of this program, of Envoy and of the agent that runs'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -l envoy-unit -d 'Have systemd start Envoy, as this unit' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -l unit -d 'The unit that this is; commands run in units that end with it' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -l hosts-unit -d 'Have systemd write /etc/hosts, by this unit' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -l dns-unit -d 'Have systemd start the standby for DNS, as this unit' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -l xds-unit -d 'Have systemd start the standby for the VM\'s place in the mesh, as this unit' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l gke -d 'Join a GKE cluster as the instance\'s service account: its project, region or zone, and name' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l server -d 'Join by the API server at this URL; needs --token-file or --google' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l kubeconfig -d 'Join by the API server of this kubeconfig\'s current context' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l directory -d 'Join by the files that `istioctl x workload entry configure` wrote' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l https -d 'Join by the same files below this URL' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l workload-group -d 'The WorkloadGroup that this VM is of' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l ca-file -d 'The CA of --server or --https; default: whom this VM trusts' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l token-file -d 'A bearer token for --server, read again for every call' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l ingress -d 'Address or name at which istiod is reached; default: that of the Service istio-eastwestgateway' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l envoy -d 'An Envoy that is here, instead of one out of an image' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l envoy-image -d 'The image that Envoy is taken out of; without a tag the one of istiod\'s release [default: docker.io/istio/proxyv2]' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l registry-config -d 'A config.json of Docker\'s with the login of the image\'s registry' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l within -d 'Time that this VM may take to serve' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l call -d 'Service that is called in the end; default: a service of the VM\'s namespace' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l google -d 'Ask --server as the instance\'s Google service account'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -l force -d 'Write over a configuration that says otherwise, and keep a copy of it beside it'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -s y -l yes -d 'Start without asking'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand up" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand down" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand down" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand down" -l purge -d 'Remove the configuration too, and the Envoys that were fetched'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand down" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand check" -l only -d 'Ask about these alone: codes, such as IVA301, and areas (host, join, control-plane, identity, envoy, interception, names, workload), with commas between' -r -f -a "host\t''
join\t''
control-plane\t''
identity\t''
envoy\t''
interception\t''
names\t''
workload\t''"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand check" -l wait -d 'Ask again until nothing fails, for so long at most; 5m where no time is given' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand check" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand check" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and not __fish_seen_subcommand_from validate show help" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and not __fish_seen_subcommand_from validate show help" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and not __fish_seen_subcommand_from validate show help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and not __fish_seen_subcommand_from validate show help" -f -a "validate" -d 'Judge the configuration, and the bundle that needs no network: all that is wrong, each with its place and its remedy'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and not __fish_seen_subcommand_from validate show help" -f -a "show" -d 'Show every value in effect and where it is from, without secrets'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and not __fish_seen_subcommand_from validate show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from validate" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from validate" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from validate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from show" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "validate" -d 'Judge the configuration, and the bundle that needs no network: all that is wrong, each with its place and its remedy'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show every value in effect and where it is from, without secrets'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand plan" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand plan" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand plan" -l full -d 'Show Envoy\'s bootstrap too'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand plan" -l detailed-exitcode -d 'Exit with 0 when there is nothing to change, and with 2 when there is'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand reload" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand reload" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand revert" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand revert" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand revert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -l within -d 'Time that this agent may take to serve before the switch counts as failed, and is undone' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -l dry-run -d 'Show what would be written, as a diff, and what becomes of each setting. Changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -l force -d 'Write over a configuration that is there'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -l switch -d 'Then take its place: stop it, take away its rules, secrets and lines of /etc/hosts, start this agent'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -l undo -d 'Put it back: stop this agent, restore what the switch took away, start Istio\'s own'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand status" -l wait -d 'Wait until the VM is ready, for 60 s or as long as is given; exit with 0 once it is' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand status" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand status" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand status" -l watch -d 'Show it again whenever it changes, until ^C'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l last-error -d 'The last call that failed, by Envoy\'s access log in the journal, or in a file' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l uid -d 'User id of the calling program, for one that the rules know' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l gid -d 'Group id of the calling program; that of its user when it isn\'t given' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l principal -d 'Identity of the caller of this VM, by which policies judge' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l path -d 'Path of a request to this VM, by which policies judge' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l header -d 'A header of the request, by which routes are chosen; :method is one, too. Where one is given, others are missing' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -l plaintext -d 'The caller of this VM speaks no TLS'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand dns" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand dns" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand dns" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "config" -d 'All that follows; as JSON, Envoy\'s whole configuration'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "clusters" -d 'The services and subsets that Envoy knows'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "listeners" -d 'The addresses and ports that Envoy answers on, and where connections to them go'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "routes" -d 'The virtual hosts, and where requests to them go'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "endpoints" -d 'The addresses behind each cluster, and how they are'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "secrets" -d 'The certificates that Envoy has, without keys'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "stats" -d 'Envoy\'s counters'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "log" -d 'The levels of Envoy\'s loggers; with --level, after setting them until Envoy\'s end'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and not __fish_seen_subcommand_from config clusters listeners routes endpoints secrets stats log help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from config" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from config" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from clusters" -l fqdn -d 'Clusters whose host has this in it' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from clusters" -l port -d 'Clusters of this port' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from clusters" -l subset -d 'Clusters of this subset' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from clusters" -l direction -d '`inbound` or `outbound`' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from clusters" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from clusters" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from clusters" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from listeners" -l address -d 'Listeners of this address' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from listeners" -l port -d 'Listeners of this port' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from listeners" -l type -d '`HTTP`, `TCP` or `HTTP+TCP`' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from listeners" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from listeners" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from listeners" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from routes" -l name -d 'Route configuration of this name, which is mostly a port' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from routes" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from routes" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from routes" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from endpoints" -l address -d 'Endpoints of this address' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from endpoints" -l port -d 'Endpoints of this port' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from endpoints" -l cluster -d 'Endpoints of this cluster' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from endpoints" -l status -d 'Endpoints that istiod says are `healthy`, `unhealthy` or `draining`' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from endpoints" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from endpoints" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from endpoints" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from secrets" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from secrets" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from secrets" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from stats" -l filter -d 'Counters whose name this regular expression finds' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from stats" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from stats" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from log" -l level -d 'The level of all loggers, such as `debug`, or of one, such as `http:debug`' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from log" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'
yaml\t'YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from log" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "config" -d 'All that follows; as JSON, Envoy\'s whole configuration'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "clusters" -d 'The services and subsets that Envoy knows'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "listeners" -d 'The addresses and ports that Envoy answers on, and where connections to them go'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "routes" -d 'The virtual hosts, and where requests to them go'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "endpoints" -d 'The addresses behind each cluster, and how they are'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "secrets" -d 'The certificates that Envoy has, without keys'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "stats" -d 'Envoy\'s counters'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "log" -d 'The levels of Envoy\'s loggers; with --level, after setting them until Envoy\'s end'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand proxy; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -s n -l namespace -d 'Namespace of the VMs' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l workload-group -d 'Name of the WorkloadGroup' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l service -d 'Name of the Service [default: that of the container, else of the WorkloadGroup]' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l service-account -d 'The VMs\' identity [default: the name of the WorkloadGroup]' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l port -d 'A port of the Service, and where the VM listens if that is another port; Istio takes the protocol from the name [default: the container\'s]' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l label -d 'A label of the VMs, beside `app`' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l network -d 'Istio\'s name of the VMs\' network, where the mesh has several' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l address -d 'An address of a VM, for a mesh in which istiod registers none; may be repeated' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l gateway -d 'The gateway of the VMs\' network, for --other-cluster in another one' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l expose -d 'Print too what exposes this: istiod to VMs, or services to other networks' -r -f -a "istiod\t'istiod, on the gateway that VMs come in by'
istiod-load-balancer\t'istiod, by a load balancer of its own, which is not reached from outside of Google\'s network'
services\t'The services of the mesh, for other networks, on the gateway between them'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l allow -d 'Print an AuthorizationPolicy: none but these service accounts call the VMs' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l egress -d 'Print a Sidecar: the VMs are told of these hosts and of istiod\'s namespace alone, such as `./*`' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l scrape -d 'Print a ScrapeConfig for Prometheus\' operator, with this address of a VM' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l istio-namespace -d 'Namespace of istiod [default: istio-system]' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l revision -d 'Revision of istiod, if it has one' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l ingress-service -d 'The Service by which VMs reach istiod [default: istio-eastwestgateway]' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l google-service-account -d 'A Google service account of the VMs, which may join; its access token needs the scope userinfo.email' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l user -d 'A Kubernetes user who may join' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l group -d 'A Kubernetes group whose users may join' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l joining-service-account -d 'A ServiceAccount whose tokens may join' -r
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l with-namespace -d 'Print the namespace too'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l other-cluster -d 'For a cluster that the VMs don\'t join: only what its pods need to call them, by --address, --gateway or --remote-secret'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l remote-secret -d 'For --other-cluster where istiod reads the VMs\' cluster too (a remote secret) and only the name is missing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l strict -d 'Print a PeerAuthentication: no call to the VMs without the mesh\'s TLS'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -l no-ingress-service -d 'VMs don\'t look for such a Service: their configuration says where istiod is'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand manifests" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand bugreport" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand bugreport" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand bugreport" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand version" -l config -d 'The configuration' -r -F
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand version" -s o -l output -d 'Form of the data on stdout' -r -f -a "text\t'Text for people'
json\t'JSON for programs'"
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand version" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "run" -d 'Join the mesh and stay until SIGTERM (what the unit starts)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "up" -d 'Join the mesh from nothing: write the configuration, get Envoy, check, plan, ask, start, wait, call'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "down" -d 'Leave the mesh and put the host back; the agent doesn\'t start at boot any more'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "check" -d 'Say what would keep this VM from joining, and what to do about it. Changes nothing on this VM'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "config" -d 'Judge the configuration and the bundle at hand, or show what is in effect. Changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "plan" -d 'Show what `run` would change on this host: a summary, what is never touched, a diff. Changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "reload" -d 'Have the running agent take up the configuration; a bad one is refused and changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "revert" -d 'Put the host back as it was, without a running agent'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "import" -d 'Take over what Istio\'s own agent (istio-sidecar) was told, and with --switch its place'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "status" -d 'Say what is wrong first, then who this VM is and how each part of the agent is'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "explain" -d 'Say why a call from this VM or to it fails, from what is on this VM alone, and what to do. Changes nothing'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "dns" -d 'Ask the agent for a name, or for the name of an address, as programs on this VM do, and say who knows it'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "proxy" -d 'Show Envoy\'s side of the mesh as `istioctl proxy-config` does, without istiod, with `-o yaml` too. Shows no secrets'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "manifests" -d 'Print what the cluster side needs for a group of VMs, for `kubectl apply -f -`. Asks no cluster'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "bugreport" -d 'Put what is known of this VM into an archive, without secrets, for whoever is to find out what is wrong'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "version" -d 'Print the versions of this program, of Envoy and of the agent that runs'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and not __fish_seen_subcommand_from run up down check config plan reload revert import status explain dns proxy manifests bugreport version help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "validate" -d 'Judge the configuration, and the bundle that needs no network: all that is wrong, each with its place and its remedy'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Show every value in effect and where it is from, without secrets'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "config" -d 'All that follows; as JSON, Envoy\'s whole configuration'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "clusters" -d 'The services and subsets that Envoy knows'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "listeners" -d 'The addresses and ports that Envoy answers on, and where connections to them go'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "routes" -d 'The virtual hosts, and where requests to them go'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "endpoints" -d 'The addresses behind each cluster, and how they are'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "secrets" -d 'The certificates that Envoy has, without keys'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "stats" -d 'Envoy\'s counters'
complete -c istio-vm-agent -n "__fish_istio_vm_agent_using_subcommand help; and __fish_seen_subcommand_from proxy" -f -a "log" -d 'The levels of Envoy\'s loggers; with --level, after setting them until Envoy\'s end'
