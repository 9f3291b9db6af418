/** The script is imported for its path only; nothing in this process runs it. */
declare const path: string;
export default path;
