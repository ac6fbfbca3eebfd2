//! The promise that everything else stands on: a host boots, is managed, and goes without a trace.

use crate::cloud::Cloud;
use crate::host_cli;

pub(crate) fn scenarios(cloud: &Cloud) {
    cloud.check("the machine has room for many hosts", || {
        // A service manager that gets no inotify instance ends at once, and all hosts share the limit.
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
        let limit: u32 = limit.expect("a limit").trim().parse().expect("a number");
        assert!(limit >= 1024, "{limit}");
    });
    let user_data = "#!/bin/sh\necho from-user-data > /var/lib/proof\n";
    let id = cloud.launch("skeleton", "bookworm", user_data, &[]);
    cloud.check("a host comes online", || cloud.online(&id));
    cloud.check("it ran its user data once cloud-init is done", || {
        let run = cloud.exec(&id, "cloud-init status --wait >/dev/null; cat /var/lib/proof");
        assert_eq!(run.stdout, "from-user-data\n", "{run}");
    });
    cloud.check("the AWS CLI on it does what its role may", || {
        host_cli::uses_its_role(cloud, &id);
    });
    cloud.check("it is terminated", || cloud.terminate(&[&id]));
}
