# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_istio_vm_ctl_global_optspecs
    string join \n f/file= json h/help V/version
end

function __fish_istio_vm_ctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_istio_vm_ctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_istio_vm_ctl_using_subcommand
    set -l cmd (__fish_istio_vm_ctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -s V -l version -d 'Print version'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "init" -d 'Write the file from what the clusters hold and from the VM\'s configuration, or print the pods'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "plan" -d 'Print what is in the way and which objects would be made; change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "verify" -d 'Ask who has both sides, and compare their answers; change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "apply" -d 'Make the objects, with all calls to the VM'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "shift" -d 'Send a share of the calls to the pods, in all clusters or in none'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "run" -d 'Go through the steps of the file, each held until Prometheus shows that the pods are good'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "report" -d 'Write the page and the picture of a run from the lines that `run --json` printed'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "pause" -d 'Stop a run of anybody, at its present share'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "return" -d 'Send all calls to the VM, in every cluster that can be reached'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "complete" -d 'Send all calls to the pods'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "retire" -d 'Take the VM out of the mesh, and remove what only it needs; there is no way back'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "status" -d 'Print where each cluster stands'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "undo" -d 'Bring all calls back and remove the objects'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "role" -d 'Print the Roles that this program needs in each cluster, for `kubectl apply`'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l context -d 'A context of the kubeconfig, for each cluster with callers; the VM\'s first [default: the current one]' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l kubeconfig -d 'The kubeconfig [default: kubectl\'s]' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l vm -d 'The VM\'s configuration, /etc/istio-vm-agent/config.toml there' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -s n -l namespace -d 'Namespace of the service [default: the VM\'s]' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l workload-group -d 'The VM\'s WorkloadGroup [default: the one that its configuration names]' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l service -d 'The Service that callers name [default: the one that selects the VM]' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l pods-service -d 'The pods\' own Service [default: that of the VM with -pods]' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l istio-namespace -d 'Namespace of istiod [default: the one that the VM\'s configuration names, or istio-system]' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l image -d 'The image of the pods, NAME@sha256:DIGEST, where the VM\'s configuration names a tag' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l pod -d 'Print the pods\' ServiceAccount, Service and Deployment as the VM\'s container has it; write no file'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand init" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand plan" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand plan" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand plan" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand verify" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand verify" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand verify" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand apply" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand apply" -l dry-run -d 'Have the API servers check it, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand apply" -l print -d 'Print the objects of each cluster as YAML, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand apply" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand apply" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand shift" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand shift" -l dry-run -d 'Have the API servers check it, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand shift" -l print -d 'Print the objects of each cluster as YAML, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand shift" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand shift" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand run" -l skip-verify -d 'Don\'t compare the answers of VM and pods before; it is printed why' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand run" -l report -d 'Write a page of Markdown about it at its end, and a picture beside that' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand run" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand run" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand run" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand report" -l to -d 'The page; the picture is beside it, with the ending .svg' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand report" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand report" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand report" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand pause" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand pause" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand pause" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand return" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand return" -l force -d 'Don\'t ask whether there is a VM'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand return" -l dry-run -d 'Have the API servers check it, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand return" -l print -d 'Print the objects of each cluster as YAML, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand return" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand return" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand complete" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand complete" -l dry-run -d 'Have the API servers check it, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand complete" -l print -d 'Print the objects of each cluster as YAML, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand complete" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand complete" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand retire" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand retire" -l check -d 'Print who still calls the VM; change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand retire" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand retire" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand status" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand status" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand undo" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand undo" -l dry-run -d 'Have the API servers check it, and change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand undo" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand undo" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand role" -l user -d 'Who is to have them, as the API server names them' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand role" -l cluster -d 'Only those of this cluster' -r
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand role" -s f -l file -d 'The file that says what migrates' -r -F
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand role" -l json -d 'Print one JSON object a line'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand role" -s h -l help -d 'Print help'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "init" -d 'Write the file from what the clusters hold and from the VM\'s configuration, or print the pods'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "plan" -d 'Print what is in the way and which objects would be made; change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "verify" -d 'Ask who has both sides, and compare their answers; change nothing'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "apply" -d 'Make the objects, with all calls to the VM'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "shift" -d 'Send a share of the calls to the pods, in all clusters or in none'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "run" -d 'Go through the steps of the file, each held until Prometheus shows that the pods are good'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "report" -d 'Write the page and the picture of a run from the lines that `run --json` printed'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "pause" -d 'Stop a run of anybody, at its present share'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "return" -d 'Send all calls to the VM, in every cluster that can be reached'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "complete" -d 'Send all calls to the pods'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "retire" -d 'Take the VM out of the mesh, and remove what only it needs; there is no way back'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "status" -d 'Print where each cluster stands'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "undo" -d 'Bring all calls back and remove the objects'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "role" -d 'Print the Roles that this program needs in each cluster, for `kubectl apply`'
complete -c istio-vm-ctl -n "__fish_istio_vm_ctl_using_subcommand help; and not __fish_seen_subcommand_from init plan verify apply shift run report pause return complete retire status undo role help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
